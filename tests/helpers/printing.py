"""What a function prints on a terminal of rich, as a text."""

import io
from collections.abc import Callable
from typing import Any

from rich.console import Console


def printed(function: Callable[..., Any], *arguments: Any, width: int = 80, **options: Any) -> str:
    """Calls `function` with these arguments and a console that is no terminal; returns all that it printed there."""
    out = io.StringIO()
    function(*arguments, console=Console(file=out, width=width, force_terminal=False), **options)
    return out.getvalue()
