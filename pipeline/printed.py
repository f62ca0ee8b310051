"""Results that show themselves."""

import io
from abc import abstractmethod

from rich.console import Console

#: Columns of what `print` and a notebook show.
WIDTH = 120


class Printed:
    """A result that `print` and a notebook show as its command prints it."""

    @abstractmethod
    def show(self, console: Console) -> None:
        """Prints the result as its command does."""

    def __repr__(self) -> str:
        text = io.StringIO()
        self.show(Console(file=text, width=WIDTH, highlight=False, color_system=None))
        return text.getvalue().rstrip("\n")
