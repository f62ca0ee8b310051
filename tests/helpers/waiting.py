"""Waiting for a page whose policy refuses `eval`, which Playwright's own way of waiting needs."""

import time
from typing import Any


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Waits for a condition of JavaScript. AssertionError after `seconds`, which a busy machine may need."""
    over = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < over, f"not in {seconds} s: {condition}"
        time.sleep(0.02)
