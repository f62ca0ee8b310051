"""Waits for conditions on a page whose policy refuses `eval`, which Playwright's own waiting needs."""

import time
from typing import Any


def until(page: Any, condition: str, seconds: float = 30) -> None:
    """Waits until a JavaScript condition is true. Raises AssertionError after `seconds`, which are many for busy machines."""
    over = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < over, f"not in {seconds} s: {condition}"
        time.sleep(0.02)
