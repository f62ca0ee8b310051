"""Instructions, continuations and pairs built from a run's own documents, where the user gives no files.

All choices are made by hashes of document ids, so the same documents give the same tasks, in any shards.
"""

import heapq
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import xxhash

#: The columns of a document from which tasks are built.
COLUMNS = ["id", "url", "title", "text"]

_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][」』”]?")
_SHORTEST = 60  # characters of a paragraph or an answer worth learning

Built = TypeVar("Built")


@dataclass(frozen=True)
class SourceDocument:
    """The document that a task is built from."""

    id: str
    url: str | None
    title: str
    text: str


@dataclass(frozen=True)
class BuiltTask:
    """An instruction and its answer, both from one document."""

    source: SourceDocument
    kind: str
    prompt: str
    answer: str


def hash_of(salt: str, identifier: str) -> int:
    """Returns a 64-bit hash that depends only on the salt and the id."""
    return xxhash.xxh3_64_intdigest(f"{salt}\0{identifier}".encode("utf-8", "surrogatepass"))


def is_held_out(identifier: str, fraction: float) -> bool:
    """Whether an example is held out. Instructions and preferences hold out the same documents."""
    return hash_of("held-out", identifier) < fraction * 2**64


def choose(
    tables: Iterable[pa.Table], salt: str, limit: int, per_document: int, build: Callable[[SourceDocument], Sequence[Built]]
) -> list[Built]:
    """Returns at most `limit` of the things that `build` makes of documents, and at most the first `per_document` of each document.

    Every place that a document could fill has its own hash, and the smallest hashes win; the result is in their order. `tables` have
    COLUMNS. Only `limit` things are held at a time, and for most documents of a large corpus `build` is never called.
    """
    heap: list[tuple[int, str, Built]] = []  # the largest hash on top: keys are negated
    seen: set[str] = set()
    for table in tables:
        for row, identifier in enumerate(table["id"].to_pylist()):
            keys = [hash_of(salt, f"{identifier} {place}") for place in range(per_document)]
            if identifier in seen or (len(heap) == limit and min(keys) >= -heap[0][0]):
                continue
            values = {name: table[name][row].as_py() for name in COLUMNS}
            built = build(SourceDocument(**{**values, "title": values["title"] or ""}))
            seen.add(identifier)
            for key, thing in zip(keys, built):
                heapq.heappush(heap, (-key, identifier, thing))
                if len(heap) > limit:
                    heapq.heappop(heap)
    return [thing for _, _, thing in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]


def instructions(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns the tasks of a document, with the kinds taking turns; the document's hash decides which kind comes first."""
    kinds = [title_tasks(source, max_chars), continuation_tasks(source, max_chars), heading_tasks(source, max_chars)]
    first = hash_of("kind", source.id) % len(kinds)
    turns = itertools.zip_longest(*kinds[first:], *kinds[:first])
    return [task for turn in turns for task in turn if task is not None]


def title_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns a task from a page's title to its first paragraph."""
    paragraph = next((block for block in blocks(source.text) if is_prose(block)), None)
    title = " ".join(source.title.split())
    if not title or len(title) > 120 or paragraph is None:
        return []
    return [BuiltTask(source, "title", f'Write the first paragraph of a page with the title "{title}".', cut(paragraph, max_chars))]


def continuation_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns tasks from the first half of a paragraph to the second, cut between sentences where possible."""
    tasks = []
    for paragraph in _in_hash_order(source, [block for block in blocks(source.text) if is_prose(block)]):
        paragraph = cut(paragraph, 2 * max_chars)
        begin = cut(paragraph, max(len(paragraph) // 2, _SHORTEST))
        rest = cut(paragraph[len(begin) :].strip(), max_chars)
        if len(begin) >= _SHORTEST and len(rest) >= _SHORTEST:
            tasks.append(BuiltTask(source, "continuation", f"Continue this text:\n\n{begin}", rest))
    return tasks


def heading_tasks(source: SourceDocument, max_chars: int) -> list[BuiltTask]:
    """Returns tasks from a question about a heading to the text under it."""
    tasks = []
    for heading, below in itertools.pairwise(blocks(source.text)):
        if is_heading(heading) and is_prose(below):
            subject = heading.lstrip("# ").strip()
            tasks.append(BuiltTask(source, "heading", f'What is there to know about "{subject}"?', cut(below, max_chars)))
    return _in_hash_order(source, tasks)


def _in_hash_order(source: SourceDocument, things: list[Built]) -> list[Built]:
    """Returns the things in an order that is independent of their place in the document."""
    places = sorted(range(len(things)), key=lambda place: hash_of(source.id, str(place)))
    return [things[place] for place in places]


def blocks(text: str) -> list[str]:
    """Returns paragraphs and headings: parts between blank lines, or single lines in a text without blank lines."""
    parts = _BLANK_LINES.split(text) if _BLANK_LINES.search(text) else text.split("\n")
    return [part.strip() for part in parts if part.strip()]


def is_prose(block: str) -> bool:
    """Whether a block is long enough, and mostly letters and spaces: not a table, code or a list of links."""
    letters = sum(character.isalpha() or character == " " for character in block)
    return len(block) >= _SHORTEST and letters >= 0.8 * len(block)


def is_heading(block: str) -> bool:
    """Whether a block is one short line that begins like a title and does not end like a sentence."""
    line = block.lstrip("# ").strip()
    return "\n" not in block and 3 <= len(line) <= 80 and line[0].isalpha() and line[0] == line[0].upper() and line[-1] not in ".!?:;,…"


def cut(text: str, limit: int) -> str:
    """Returns at most `limit` characters of `text`: whole sentences if they fill half of it, else whole words, else characters."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, limit + 1) if match.end() <= limit]
    if ends and ends[-1] >= limit // 2:
        return text[: ends[-1]]
    space = max(text.rfind(" ", 0, limit + 1), text.rfind("\n", 0, limit + 1))
    return text[:space].rstrip() if space >= limit // 2 else text[:limit]
