"""Pictures of the real app over sample runs, for the docs: `python -m runtide.testing.screenshots docs/images`."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from runtide.processor.rebuild import rebuild
from runtide.testing import browser, sample_data
from runtide.testing.embedded import start_embedded, stop_embedded
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrate

_RUN = f"run?project={sample_data.RUNS[0].project}&run={sample_data.RUNS[0].run_id}"
_PICTURES = (
    # file, address, width, height, dark, how many elements of which kind must be there
    ("run.png", _RUN, 1280, 860, False, "svg.marks", 6),
    ("run-dark.png", _RUN, 1280, 860, True, "svg.marks", 6),
    ("runs.png", "", 1280, 420, False, ".rt-table tbody tr", len(sample_data.RUNS)),
)
_SOON_S = 60.0


def main(folder: Path) -> None:
    """Take every picture anew."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        server = start_embedded(Path(temporary) / "home")
        try:
            client = connect(ClickHouseSettings(port=server.port, username="writer", password=server.password))
            migrate(client)
            sample_data.fill(client)
            rebuild(client, force=True)  # made-up rows do not lie end to end
            with browser.dashboard(server.port, Path(temporary) / "dashboard.log") as address:
                for name, path, width, height, dark, kind, count in _PICTURES:
                    with browser.browser(width, height, dark) as driver:
                        driver.get(f"{address}/{path}")
                        browser.until(lambda d=driver, k=kind, n=count: _drawn(d, k, n), _SOON_S)  # type: ignore[misc]
                        driver.save_screenshot(str(folder / name))
                        logging.getLogger(__name__).info("picture taken name=%s", name)
        finally:
            stop_embedded(server)


def _drawn(driver: Any, kind: str, count: int) -> bool:
    found = driver.execute_script("return document.querySelectorAll(arguments[0]).length", kind)
    return bool(found >= count)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
