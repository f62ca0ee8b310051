"""Tasks that a run builds from its own documents, where no files of instructions or preferences are given.

Everything is chosen by hashes of document ids: the same documents give the same tasks, in whatever shards they lie.
"""

import heapq
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import xxhash

#: The columns of a document that tasks are built from.
COLUMNS = ["id", "url", "title", "text"]

_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？][」』”]?")
_SHORTEST = 60  # characters of a paragraph or an answer worth learning

Built = TypeVar("Built")


@dataclass(frozen=True)
class Source:
    """The document that a task is built from."""

    id: str
    url: str | None
    title: str
    text: str


@dataclass(frozen=True)
class Task:
    """An instruction and its answer, both from one document."""

    source: Source
    kind: str
    prompt: str
    answer: str


def hash_of(salt: str, identifier: str) -> int:
    """64 bits that depend on nothing but the salt and the id."""
    return xxhash.xxh3_64_intdigest(f"{salt}\0{identifier}".encode("utf-8", "surrogatepass"))


def is_held_out(identifier: str, fraction: float) -> bool:
    """Whether an example is kept for measuring. The same documents are held out of instructions and preferences."""
    return hash_of("held-out", identifier) < fraction * 2**64


def choose(tables: Iterable[pa.Table], salt: str, limit: int, build: Callable[[Source], Built | None]) -> list[Built]:
    """What `build` makes of the `limit` documents with the smallest hashes for which it makes something.

    `tables` have COLUMNS. The result is ordered by hash, and only `limit` results are held at a time.
    """
    heap: list[tuple[int, str, Built]] = []  # the largest hash on top: keys are negated
    seen: set[str] = set()
    for table in tables:
        columns = [table[name] for name in COLUMNS]
        for row, identifier in enumerate(columns[0].to_pylist()):
            key = hash_of(salt, identifier)
            if identifier in seen or (len(heap) == limit and key >= -heap[0][0]):
                continue
            built = build(Source(identifier, columns[1][row].as_py(), columns[2][row].as_py() or "", columns[3][row].as_py()))
            if built is None:
                continue
            seen.add(identifier)
            entry = (-key, identifier, built)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                seen.discard(heapq.heapreplace(heap, entry)[1])
    return [built for _, _, built in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]


def instruction(source: Source, max_chars: int) -> Task | None:
    """One task of a document; which kind comes first is decided by its hash, and the next ones fill in."""
    kinds = (title_task, continuation_task, heading_task)
    first = hash_of("kind", source.id) % len(kinds)
    for kind in kinds[first:] + kinds[:first]:
        task = kind(source, max_chars)
        if task is not None:
            return task
    return None


def title_task(source: Source, max_chars: int) -> Task | None:
    """A page's title to its first paragraph."""
    paragraph = next((block for block in blocks(source.text) if is_prose(block)), None)
    title = " ".join(source.title.split())
    if not title or len(title) > 120 or paragraph is None:
        return None
    return Task(source, "title", f'Write the first paragraph of a page with the title "{title}".', cut(paragraph, max_chars))


def continuation_task(source: Source, max_chars: int) -> Task | None:
    """The first half of the longest paragraph to its second half, cut between sentences where there are some."""
    paragraph = max((block for block in blocks(source.text) if is_prose(block)), key=len, default="")
    paragraph = cut(paragraph, 2 * max_chars)
    begin = cut(paragraph, max(len(paragraph) // 2, _SHORTEST))
    rest = cut(paragraph[len(begin) :].strip(), max_chars)
    if len(begin) < _SHORTEST or len(rest) < _SHORTEST:
        return None
    return Task(source, "continuation", f"Continue this text:\n\n{begin}", rest)


def heading_task(source: Source, max_chars: int) -> Task | None:
    """A question about a heading to the text under it."""
    parts = blocks(source.text)
    for heading, below in itertools.pairwise(parts):
        if is_heading(heading) and is_prose(below):
            subject = heading.lstrip("# ").strip()
            return Task(source, "heading", f'What is there to know about "{subject}"?', cut(below, max_chars))
    return None


def blocks(text: str) -> list[str]:
    """Paragraphs and headings: what blank lines part, or single lines in a text without blank lines."""
    parts = _BLANK_LINES.split(text) if _BLANK_LINES.search(text) else text.split("\n")
    return [part.strip() for part in parts if part.strip()]


def is_prose(block: str) -> bool:
    """Long enough, and mostly letters and spaces: no table, code or list of links."""
    letters = sum(character.isalpha() or character == " " for character in block)
    return len(block) >= _SHORTEST and letters >= 0.8 * len(block)


def is_heading(block: str) -> bool:
    """One short line that begins like a title and does not end like a sentence."""
    line = block.lstrip("# ").strip()
    return "\n" not in block and 3 <= len(line) <= 80 and line[0].isalpha() and line[0] == line[0].upper() and line[-1] not in ".!?:;,…"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`: whole sentences if they fill half of it, else whole words, else characters."""
    if len(text) <= limit:
        return text
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, limit + 1) if match.end() <= limit]
    if ends and ends[-1] >= limit // 2:
        return text[: ends[-1]]
    space = max(text.rfind(" ", 0, limit + 1), text.rfind("\n", 0, limit + 1))
    return text[:space].rstrip() if space >= limit // 2 else text[:limit]
