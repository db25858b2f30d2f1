"""What stands on a page, for tests in a browser."""

from __future__ import annotations

from typing import Any

from runtide.testing.browser import until

SOON_S = 20.0


def text(driver: Any, selector: str = "body") -> str:
    """All text of what matches; "" where nothing does."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')"
    return str(driver.execute_script(script, selector))


def table(driver: Any) -> list[list[str]]:
    rows = "[...document.querySelectorAll('.rt-table tbody tr')]"
    script = f"return {rows}.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    cells: list[list[str]] = driver.execute_script(script)
    return cells


def shows(driver: Any, words: str, seconds: float = SOON_S) -> float:
    return until(lambda: words in text(driver), seconds, lambda: f"no {words!r} in:\n{text(driver)}")
