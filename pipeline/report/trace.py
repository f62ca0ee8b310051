"""`trace`: from a token of a shard back to its document, the values that let it through, and the crawl's record."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.read import DATA_STAGES, RunReader
from corpusmill.pipeline.report.safe import safe_line
from corpusmill.pipeline.report.tables import cell, show, table
from corpusmill.pipeline.report.why import TOLD, limit
from corpusmill.pipeline.tokenshards import TokenShards

#: Tokens shown before and after.
AROUND = 24


def find_tokenizer(folder: Path) -> Any:
    """The run's tokenizer, or None where it has none (its tokens are then shown as numbers)."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises plain Exceptions
        raise InputError(f"{path}: not a tokenizer ({error}).") from error


def trace(folder: str, shard: int, token: int, split: str, console: Console) -> None:
    """Explains token number `token` of shard number `shard`. Raises InputError where there is no such token."""
    reader = RunReader(folder)
    path = f"tokens/{split}"
    if not reader.storage.exists(f"{path}/shards.json"):
        there = [name for name in ("train", "validation") if reader.storage.exists(f"tokens/{name}/shards.json")]
        hint = f"there are {', '.join(there)}" if there else "run: corpusmill tokens " + folder
        raise InputError(f"{reader.storage.path(path)}: no token shards of the split {split!r} ({hint}).")
    shards = TokenShards(reader.storage.path(path))
    address = shards.locate(shard, token)
    ids = shards.tokens(shard)
    tokenizer = find_tokenizer(Path(reader.storage.root))
    console.print(Text(f"Token {token:,} of shard {shard} ({split}): ", style="bold"), _context(tokenizer, ids, token, address), sep="")
    made = table("", "what", "where")
    record = f"{address.source or '(not known)'}" + (f", offset {address.offset}" if address.offset is not None else "")
    facts = {
        "token id": f"{int(ids[token])}, number {token - address.first:,} of the document's {address.tokens:,}",
        "document": address.id,
        "URL": address.url or "(none)",
        "crawl file": record + (f", length {address.length}" if address.length is not None else ""),
        "text": f"{address.data_file}, row {address.data_row}",
    }
    for name, value in facts.items():
        made.add_row(name, cell(value, 400))
    made.columns[1].no_wrap = False
    console.print(made)
    _print_values(reader, address.id, console)


def _context(tokenizer: Any, ids: Any, token: int, address: Any) -> Text:
    """The document's text around the token, the token itself marked; numbers where there is no tokenizer."""
    low, high = max(address.first, token - AROUND), min(address.first + address.tokens, token + AROUND + 1)
    if tokenizer is None:
        return Text(" ".join(str(i) for i in ids[low:high].tolist()))

    def decode(begin: int, end: int) -> str:
        return safe_line("|" + tokenizer.decode(ids[begin:end].tolist(), skip_special_tokens=False) + "|", 2000)[1:-1]

    return Text(decode(low, token)) + Text(decode(token, token + 1) or "�", style="bold reverse") + Text(decode(token + 1, high))


def _print_values(reader: RunReader, id_: str, console: Console) -> None:
    """What each data stage measured of the document."""
    made = table("What was measured", "stage", "value", ">measured", "fails if")
    for stage in DATA_STAGES:
        if reader.stages[stage].outputs("report/"):
            rules = reader.rules(stage)
            for row in reader.rows(reader.find(stage, "report", "id", [id_])[:1]):
                for name, value in row.items():
                    if name not in TOLD and value is not None:
                        limits = "; ".join(limit(rule) for rule in rules if rule.column == name)
                        made.add_row(stage, cell(name, 40), cell(value, 40), cell(limits, 100))
    if made.row_count:
        console.print()
        show(made, console)
