"""Which documents are meant by a URL, an id, the beginning of one, or a passage of text."""

import difflib
import functools
import re
import shlex
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.read import DATA_STAGES, RunReader

_ID = re.compile(r"[0-9a-f]{4,32}")
#: What begins a URL.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+|www\.\S+")
#: What spellings of one URL differ in: scheme, `www.`, slashes at the end, an empty query, a fragment.
_SPELLING = (r"^[a-z][a-z0-9+.\-]*://", r"^www\.", r"#.*$", r"\?$", r"/+$", r"/index\.html?$")
#: URLs offered for one that is not there, and how many of its host are compared with it.
OFFERED, COMPARED = 4, 20_000
#: What `str.split` cuts at, as a class of RE2.
SPACE = r"[\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
#: Characters of text shown on each side of a passage.
AROUND = 60


@dataclass
class PassageHolder:
    """A document that holds a passage: some of its text before it, the passage as it stands there, and some after; what became of it."""

    id: str
    url: str | None
    before: str
    passage: str
    after: str
    outcome: str = ""


@dataclass
class Passages:
    """The documents of `stage` that hold a passage: how many there are, and the first of them."""

    stage: str = ""
    count: int = 0
    holders: list[PassageHolder] | None = None


def resolve(reader: RunReader, stages: list[str], document: str) -> list[str]:
    """The ids of the documents with this URL, this id, or the one id that begins so; empty where there is none."""
    found: dict[str, None] = {}
    columns = ["id"] if re.fullmatch("[0-9a-f]{32}", document) else ["id", "url"]
    for stage in stages:
        for shard in reader.tables(stage, "report", columns):
            if set(columns) <= set(shard.column_names):
                masks = (pc.fill_null(pc.equal(shard[column], document), False) for column in columns)
                found.update(dict.fromkeys(shard.filter(functools.reduce(pc.or_, masks))["id"].to_pylist()))
        if found:
            return list(found)
    if not _ID.fullmatch(document):
        return []
    for stage in stages:
        for shard in reader.tables(stage, "report", ["id"]):
            if "id" in shard.column_names:
                found.update(dict.fromkeys(shard.filter(pc.starts_with(shard["id"], document))["id"].to_pylist()))
        if found:
            break
    if len(found) > 1:
        some = ", ".join(sorted(found)[:4])
        raise InputError(f"{document}: {len(found):,} documents have an id that begins so ({some}, ...); give more of it.")
    return list(found)


def is_url(document: str) -> bool:
    return _URL.fullmatch(document.strip()) is not None


def is_text(document: str) -> bool:
    """Whether what is asked for can only be a passage: it is neither a URL nor an id."""
    return not is_url(document) and not _ID.fullmatch(document)


def spellings(reader: RunReader, stages: list[str], url: str, near: bool = True) -> list[str]:
    """URLs of the run that are `url` in another spelling, else (where `near`) those of its host that are most like it; the best first."""
    wanted = _plain_spelling(url)
    host = re.split("[/?]", wanted)[0]
    same, like = dict[str, None](), dict[str, None]()
    if not host:
        return []
    for shard in reader.tables(stages[0], "report", ["url"]):
        if "url" not in shard.column_names:
            continue
        urls = pc.unique(shard["url"].drop_null())
        urls = urls.filter(pc.match_substring(urls, host, ignore_case=True))
        plain = pc.utf8_lower(urls)
        for pattern in _SPELLING:
            plain = pc.replace_substring_regex(plain, pattern, "")
        same.update(dict.fromkeys(urls.filter(pc.equal(plain, wanted)).to_pylist()))
        if near and len(like) < COMPARED:
            like.update(dict.fromkeys(urls.filter(pc.starts_with(plain, host)).slice(0, COMPARED).to_pylist()))
    same.pop(url, None)
    return list(same)[:OFFERED] or difflib.get_close_matches(url, list(like), OFFERED, 0.6)


def _plain_spelling(url: str) -> str:
    plain = url.strip().lower()
    for pattern in _SPELLING:
        plain = re.sub(pattern, "", plain)
    return plain


def find_passage(reader: RunReader, text: str, limit: int) -> Passages:
    """The documents that hold `text`, all white space being equal, in the earliest stage where one does; the first `limit` in full.

    Later stages count only where no earlier one has it: a step may have written what is looked for. Texts are read a row group at a time.
    """
    words = text.split()
    found = Passages()
    if not words:
        return found
    for stage in DATA_STAGES:
        if reader.stages[stage].outputs("data/"):
            found = Passages(stage, 0, [])
            for table in reader.tables(stage, "data", ["id", "url", "text"]):
                if {"id", "url", "text"} <= set(table.column_names):
                    _search(table, words, limit, found)
            if found.count:
                break
    return found


def _search(table: pa.Table, words: list[str], limit: int, found: Passages) -> None:
    longest = max(words, key=len)
    pattern = f"{SPACE}+".join(map(_quoted, words))
    some = table.filter(pc.fill_null(pc.match_substring(table["text"], longest), False))
    if len(words) > 1 and some.num_rows:
        some = some.filter(pc.match_substring_regex(some["text"], pattern))
    found.count += some.num_rows
    for row in some.slice(0, max(0, limit - len(found.holders or []))).to_pylist():
        assert found.holders is not None
        found.holders.append(_holder(row, words))


def _quoted(word: str) -> str:
    """A word as a pattern of RE2, which takes any character but ASCII punctuation for itself."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", word)


def _holder(row: dict[str, Any], words: list[str]) -> PassageHolder:
    text = row["text"]
    place = re.search(r"\s+".join(map(re.escape, words)), text)
    begin, end = place.span() if place else (0, 0)
    before, after = text[max(0, begin - AROUND) : begin], text[end : end + AROUND]
    before, after = "…" * (begin > AROUND) + before, after + "…" * (end + AROUND < len(text))
    return PassageHolder(row["id"], row["url"], before, text[begin:end], after)


def not_found(reader: RunReader, stages: list[str], document: str, offered: list[str] | None = None) -> InputError:
    """The sentence for a document that the run does not know, with what may have been meant (found here where it is not given)."""
    root = reader.storage.root
    said = f"{root}: no document has the URL or id {safe_line(document, 200)!r}"
    if offered is None:
        offered = spellings(reader, stages, document) if is_url(document) else []
    if offered:
        return InputError(f"{said}; there is {', '.join(safe_line(url, 300) for url in offered)}.")
    if given_up := sum(len(state.quarantined) for state in reader.stages.values()):
        said += f", but {given_up:,} tasks were given up, which may have read it (corpusmill verify lists them)"
    if is_text(document):
        return InputError(f"{said}, and no text holds it (capitals count; {_by_part(root, document)}).")
    return InputError(f"{said} ({_by_part(root, document)}; --text looks for it in texts).")


def _by_part(root: str, document: str) -> str:
    """How to find a page by a piece of its URL; of what can't be one, how to see some documents."""
    if document.isprintable() and not any(map(str.isspace, document)):
        return f"a piece of a URL: corpusmill inspect {root} --url {shlex.quote(safe_line(document, 200))}"
    return f"corpusmill inspect {root} --limit 5 shows some documents"
