"""The real app in a real Chromium, for browser tests, screenshots and benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtide.cli.ports import free_port
from runtide.cli.supervisor import answers

_REPOSITORY = Path(__file__).resolve().parents[3]
_START_S = 60.0


def chromium() -> tuple[str, str] | None:
    """Chromium and its driver on this machine, or None."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def dashboard(clickhouse_port: int, log: Path, told: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve the dashboard for a ClickHouse on this machine, `told` more by variables; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(_REPOSITORY / "dashboards" / "serve.py")]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.headless", "true"]
    command += ["--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none"]
    environment = os.environ | {"RUNTIDE_CLICKHOUSE_PORT": str(clickhouse_port), "RUNTIDE_CLICKHOUSE_HOST": "127.0.0.1"}
    environment |= told or {}
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=_REPOSITORY / "dashboards")
    try:
        health = f"http://127.0.0.1:{port}/_stcore/health"
        until(lambda: answers(health), _START_S, lambda: f"the dashboard did not start: {log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def browser(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """A headless Chromium of this size, as a selenium driver."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found = chromium()
    if found is None:
        raise RuntimeError("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()


def until(
    true: Callable[[], object], seconds: float, what: Callable[[], str] = lambda: "it did not come true"
) -> float:
    """Wait until something holds and say how long that took. Raises AssertionError past the deadline."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"after {seconds:g} s: {what()}")
        time.sleep(0.02)
    return time.monotonic() - began
