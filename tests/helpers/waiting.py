"""Waits for a state of a page. A test looks at what a page draws through `drawn`, `until`, or Playwright's `expect`, which waits as well:
anything else may look while an element is being exchanged."""

from typing import Any


def until(page: Any, condition: str) -> None:
    """Waits until a JavaScript expression is true. One that throws is not true yet: its element is not there, or another page is loading.

    It is called as a function, since the pages' policy forbids to evaluate a text later.
    """
    page.wait_for_function(f"() => {{ try {{ return {condition}; }} catch {{ return false; }} }}")


def drawn(page: Any) -> Any:
    """Returns the explorer's page once all that it has asked for, or is about to ask for, is drawn."""
    until(page, "document.documentElement.dataset.busy === 'false' && !document.querySelector('[aria-busy]')")
    return page
