"""`tokens find`: finds the documents that hold a text, and the places of their tokens.

Searches the encoded documents, one row group after the other, so it also finds a text that begins inside a token. Memory holds two bytes
for each document of the files with a match, and the details of the first `limit` documents.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.shards import iter_tables, open_parquet
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import SPLITS, TokenShards, split_folders
from corpusmill.report.read import RunReader
from corpusmill.report.sources import other_run
from corpusmill.report.tables import show_notes
from corpusmill.report.tokens.token_sets import find_tokenizer, open_split
from corpusmill.report.tokens.trace import Around, around

DESCRIBED = ("id", "url", "source", "offset", "length")
#: Bytes of text shown before and after the match.
SNIPPET = 80
#: A file of documents: its run (None: this one), and its path there.
File = tuple[str | None, str]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TokenPlace:
    """The place of a document's tokens. `token`: the number in the shard of the token in which the text begins."""

    split: str
    shard: int
    first: int
    tokens: int
    token: int | None
    copy: int  # the repetition in a mixture, from 0

    def command(self, run: str) -> str | None:
        """Returns the command that traces the token."""
        if self.token is None:
            return None
        split = "" if self.split == "train" else f" --split {self.split}"
        return f"corpusmill trace {shlex.quote(run)} --shard {self.shard} --token {self.token}{split}"


@dataclass
class Found:
    """A document that holds the text, first at its byte `byte`. `places` is empty where no shard has the document."""

    document: dict[str, Any]  # DESCRIBED, data_file, data_row
    byte: int
    occurrences: int
    snippet: Around
    text: bytes = field(repr=False)
    places: list[TokenPlace] = field(default_factory=list)


@dataclass
class Findings:
    """The result: documents that hold the text, occurrences, documents in no shard, and the first documents."""

    documents: int = 0
    occurrences: int = 0
    outside: int = 0
    found: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stale: str | None = None  # the sentence about stale stages of the run

    def as_json(self, run: str) -> dict[str, Any]:
        found = [
            {
                **one.document, "byte": one.byte, "occurrences": one.occurrences,
                "before": one.snippet.before, "characters": one.snippet.characters, "after": one.snippet.after,
                "places": [{**vars(place), "trace": place.command(run)} for place in one.places],
            }
            for one in self.found
        ]  # fmt: skip
        counts = {"documents": self.documents, "occurrences": self.occurrences, "documents_in_no_shard": self.outside}
        return {"stale": self.stale, **counts, "found": found, "notes": self.notes}


def find(folder: str, text: str, ignore_case: bool = False, limit: int = 20) -> Findings:
    """Searches for `text` in the documents that a run has encoded. Raises InputError if it has no token shards."""
    if not text:
        raise InputError("tokens find: the text to look for is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("tokens find: the text to look for is not UTF-8.") from error
    root = Storage(folder)
    sets = [open_split(root, split) for split in split_folders(root) or SPLITS]
    reader = RunReader(folder) if root.exists("tokens") else None
    findings, hits = Findings(stale=reader.stale.sentence if reader and reader.stale else None), dict[File, Bools]()
    for file in _files(reader, sets):
        matching = _search(root, file, text, ignore_case, limit, findings)
        if matching is not None and matching.any():
            hits[file] = matching
    _place(root, sets, hits, findings)
    return findings


def _files(run: RunReader | None, sets: list[TokenShards]) -> list[File]:
    """Returns the files of documents that a run's stage `tokens` has read, then others that the shards' indexes name."""
    read = run.inputs("tokens").values() if run else ()
    files: dict[File, None] = {(None, path): None for path in sorted(read)}
    for table, home, _, _ in _index_groups(sets, ["data_file"]):
        files.update({(home, str(path)): None for path in sorted(pc.unique(table["data_file"]).to_pylist())})
    return list(files)


def _index_groups(sets: list[TokenShards], columns: list[str]) -> Iterator[tuple[pa.Table, str | None, int, int]]:
    """Yields the row groups of all indexes, each with the run of its files, the number of the set, and the number of the shard."""
    for place, shards in enumerate(sets):
        for number, shard in enumerate(shards.shards):
            for table in iter_tables(shards.storage, shard.index, columns):
                yield table, shard.run, place, number


def _search(run: Storage, file: File, text: str, ignore_case: bool, limit: int, findings: Findings) -> Bools | None:
    """Returns which rows of a file of documents hold the text; None if the file can't be read."""
    home, path = file
    options = {"ignore_case": ignore_case}
    masks, before = [], (findings.documents, findings.occurrences, len(findings.found))
    try:
        with open_parquet(other_run(run, home) if home else run, path) as parquet:
            if "text" not in parquet.schema_arrow.names:
                raise InputError(f"{path}: it has no column text.")
            begin = 0
            for group in range(parquet.num_row_groups):
                texts = parquet.read_row_group(group, columns=["text"], use_threads=False)["text"]
                mask = pc.fill_null(pc.match_substring(texts, text, **options), False)
                rows = np.flatnonzero(mask.to_numpy())
                masks.append(mask.to_numpy())
                if len(rows):
                    holding = texts.filter(mask)
                    findings.documents += len(rows)
                    findings.occurrences += pc.sum(pc.count_substring(holding, text, **options)).as_py()
                    wanted = rows[: max(0, limit - len(findings.found))]
                    if len(wanted):
                        described = parquet.read_row_group(group, columns=list(DESCRIBED), use_threads=False).take(pa.array(wanted))
                        _add_documents(described, holding.slice(0, len(wanted)), file, begin + wanted, text, options, findings)
                begin += len(texts)
    except (InputError, pa.ArrowException, OSError) as error:
        findings.notes.append(f"documents are left out, as their file can't be read: {error}")
        findings.documents, findings.occurrences, found = before
        del findings.found[found:]
        return None
    return np.concatenate(masks) if masks else np.zeros(0, np.bool_)


def _add_documents(
    described: pa.Table, texts: Any, file: File, rows: npt.NDArray[np.int64], text: str, options: Any, findings: Findings
) -> None:
    starts = pc.find_substring(texts, text, **options).to_pylist()
    counts = pc.count_substring(texts, text, **options).to_pylist()
    for row, document, whole, start, count in zip(rows.tolist(), described.to_pylist(), texts.to_pylist(), starts, counts, strict=True):
        encoded = whole.encode()
        size = len(encoded[start : start + 4 * len(text)].decode("utf-8", "ignore")[: len(text)].encode())
        place = {"data_file": file[1], "data_row": row, **({"run": file[0]} if file[0] else {})}
        findings.found.append(Found({**document, **place}, start, count, around(encoded, start, size, SNIPPET), encoded))


def _place(root: Storage, sets: list[TokenShards], hits: dict[File, Bools], findings: Findings) -> None:
    """Finds the documents in the shards' indexes."""
    table, reason = find_tokenizer(root, sets[0].description)
    if table is None:
        findings.notes.append(f"{reason}, so no token is named.")
    listed = {(one.document.get("run"), one.document["data_file"], one.document["data_row"]): one for one in findings.found}
    missing = {file: matching.copy() for file, matching in hits.items()}
    columns = ["data_file", "data_row", "first", "tokens", "copy", "text_begin", "utf8_bytes"]
    for rows, home, place, number in _index_groups(sets, columns):
        for path, at in _by_file(rows["data_file"]):
            if (home, path) not in hits:
                continue
            data_rows = rows["data_row"].to_numpy()[at]
            there = data_rows < len(hits[home, path])
            matching = np.zeros(len(at), np.bool_)
            matching[there] = hits[home, path][data_rows[there]]
            missing[home, path][data_rows[matching]] = False
            shown = [(home, path, row) in listed for row in data_rows[matching].tolist()] if listed else []
            for row in rows.take(pa.array(at[matching][shown])).to_pylist() if any(shown) else ():
                one = listed[home, path, row["data_row"]]
                if not row["text_begin"] <= one.byte < row["text_begin"] + max(row["utf8_bytes"], 1):
                    continue  # the match is in the other part of a document that was split in two
                one.places.append(_token_at(sets[place], number, row, one, table, findings))
    findings.outside = sum(int(rows.sum()) for rows in missing.values())


def _by_file(files: pa.ChunkedArray) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yields each file name, with the rows that have it, ascending."""
    coded = files.combine_chunks().dictionary_encode()
    codes = coded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(coded.dictionary) + 1))
    return ((path, order[ends[code] : ends[code + 1]]) for code, path in enumerate(coded.dictionary.to_pylist()))


def _token_at(
    shards: TokenShards, number: int, row: dict[str, Any], one: Found, table: TokenBytes | None, findings: Findings
) -> TokenPlace:
    split, first, count, copy = shards.description.split, row["first"], row["tokens"], row["copy"]
    if table is None:
        return TokenPlace(split, number, first, count, None, copy)
    ids, begin = shards.tokens(number)[first : first + count], row["text_begin"]
    if int(ids.max()) >= len(table.sizes) or table.join(ids) != one.text[begin : begin + row["utf8_bytes"]]:
        findings.notes.append(f"{one.document['data_file']}, row {row['data_row']}, is not the text of its tokens, so no token is named.")
        return TokenPlace(split, number, first, count, None, copy)
    token = first + int(np.searchsorted(np.cumsum(table.sizes[ids]), one.byte - begin, "right"))
    return TokenPlace(split, number, first, count, token, copy)


def show_findings(run: str, findings: Findings, as_json: bool, console: Console) -> None:
    """Prints one JSON object, or for each document a block with the command that traces the token."""
    if as_json:
        print(json.dumps(findings.as_json(run), indent=2, default=str))
        return
    outside = f", {findings.outside:,} of them in no shard" if findings.outside else ""
    console.print(f"Documents that hold this text: {findings.documents:,}{outside}. Occurrences: {findings.occurrences:,}.")
    for one in findings.found:
        console.print()
        _show(run, one, console)
    if findings.documents > len(findings.found):
        console.print(f"\nNot shown: {findings.documents - len(findings.found):,} (--limit shows more).")
    show_notes(findings.notes, console)


def _show(run: str, one: Found, console: Console) -> None:
    document = one.document
    before, inside, after = (safe_line(f"|{part}|", 1000)[1:-1] for part in (one.snippet.before, one.snippet.characters, one.snippet.after))
    console.print(Text(safe_line(document["url"] or "(no URL)", 400), style="bold"))
    console.print(Text(before) + Text(f"⟦{inside}⟧", style="bold reverse") + Text(after))
    again = f", {one.occurrences:,} times" if one.occurrences > 1 else ""
    source = safe_line(f"{document['source']}, offset {document['offset']}", 400)
    console.print(Text(f"  id {safe_line(document['id'], 80)}; from {source}", style="dim"))
    console.print(Text(f"  {safe_line(document['data_file'], 200)}, row {document['data_row']}, byte {one.byte:,}{again}", style="dim"))
    if not one.places:
        console.print(Text("  in no shard", style="yellow"))
    for place in one.places:
        copy = f" (copy {place.copy + 1})" if place.copy else ""
        console.print(Text(f"  {place.split}, shard {place.shard}: tokens {place.first:,} to {place.first + place.tokens - 1:,}{copy}"))
        if place.token is not None:
            console.print(Text(f"    {place.command(run)}", style="cyan"))
