"""What a retuning changed, on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from corpusmill.filters.retune import Retuned


def show(result: Retuned, console: Console) -> None:
    """The rules that changed, and how many documents go on."""
    if not result.changed:
        console.print("No threshold is another one than before; nothing changed.")
        return
    table = Table("rule", "threshold", "now", "fails", "now", box=None, pad_edge=False)
    for name, (old, new) in result.changed.items():
        before, now = result.failed.get(name, (0, 0))
        table.add_row(name, _threshold(old), _threshold(new), f"{before:,}", f"{now:,}")
    console.print(table)
    console.print(
        f"{result.documents:,} documents: {result.kept_before:,} went on before, {result.kept:,} do now "
        f"({result.came_back:,} came back, {result.gone:,} no longer go on); data shards to write anew: {result.data_shards:,}."
    )
    if result.to_measure:
        console.print(f"{result.to_measure:,} shards have to be measured again, as what is stored of them is not what the manifest says.")


def _threshold(value: Any) -> str:
    return "off" if value is None else str(list(value) if isinstance(value, tuple) else value)
