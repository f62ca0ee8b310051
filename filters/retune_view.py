"""What a retuning changed, on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from corpusmill.filters.retune import Retuned


def show(folder: str, result: Retuned, console: Console) -> None:
    """The rules that changed, how many documents go on, and what is stale now."""
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
    if result.stale:
        console.print(
            f"Note: {', '.join(result.stale)} worked on the documents of before; go on with: corpusmill {result.stale[0]} {folder}",
            markup=False,
        )


def _threshold(value: Any) -> str:
    return "off" if value is None else str(list(value) if isinstance(value, tuple) else value)
