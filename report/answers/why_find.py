"""Finds the documents for a URL, an id, the beginning of an id, a piece of a URL, or a passage of text."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.ask import columns
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import quoted
from corpusmill.report.read import DATA_STAGES, NO_PAGE

_ID = re.compile(r"[0-9a-f]{4,32}")
#: The beginning of a URL.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+|www\.\S+")
#: The parts in which spellings of one URL differ: scheme, `www.`, slashes at the end, an empty query, a fragment.
_SPELLING = (r"^[a-z][a-z0-9+.\-]*://", r"^www\.", r"#.*$", r"\?$", r"/+$", r"/index\.html?$")
#: URLs offered for an unknown one, and URLs of its host that are compared with it.
OFFERED, COMPARED = 4, 20_000
#: The white space at which `str.split` cuts, as a class of RE2.
SPACE = r"[\t-\r\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
#: Characters of text shown on each side of a passage.
AROUND = 60


@dataclass
class PassageHolder:
    """A document that holds a passage: the text before it, the passage as written, the text after it, and the document's outcome."""

    id: str
    url: str | None
    before: str
    passage: str
    after: str
    outcome: str = ""


@dataclass
class Passages:
    """The documents of `stage` that hold a passage (empty: whose URL holds it): their number, and the first of them."""

    stage: str = ""
    count: int = 0
    holders: list[PassageHolder] | None = None


def resolve(run: Run, stages: Sequence[str], document: str) -> list[str]:
    """Returns the ids of the documents with this URL or id, or the only id that begins so; empty where there is none."""
    whole = re.fullmatch("[0-9a-f]{32}", document)
    found = _ids(run, stages, "id = $document" if whole else "id = $document OR url = $document", document)
    if found or not _ID.fullmatch(document):
        return found
    found = _ids(run, stages, "starts_with(id, $document)", document)
    if len(found) > 1:
        some = ", ".join(sorted(found)[:4])
        raise InputError(f"{document}: {len(found):,} documents have an id with this beginning ({some}, ...); give more characters.")
    return found


def _ids(run: Run, stages: Sequence[str], condition: str, document: str) -> list[str]:
    """Returns the ids that meet a condition, from the first report that has any."""
    for stage in stages:
        if {"id", "url"} <= columns(run, f"{stage}_report").keys():
            rows = run.rows(f"SELECT id::VARCHAR FROM {stage}_report WHERE {condition}", document=document)
            if rows:
                return list(dict.fromkeys(id_ for (id_,) in rows))
    return []


def is_url(document: str) -> bool:
    return _URL.fullmatch(document.strip()) is not None


def is_text(document: str) -> bool:
    """Whether the query can only be a passage, since it is neither a URL nor an id."""
    return not is_url(document) and not _ID.fullmatch(document)


def spellings(run: Run, stages: Sequence[str], url: str, near: bool = True) -> list[str]:
    """Returns URLs of the run that are other spellings of `url`; without any (and where `near`) the most similar URLs of its host. The best
    comes first."""
    wanted, plain = url.strip().lower(), "lower(url)"
    for pattern in _SPELLING:
        wanted, plain = re.sub(pattern, "", wanted), f"regexp_replace({plain}, {quoted(pattern)}, '')"
    host, table = re.split("[/?]", wanted)[0], f"{stages[0]}_report"
    if not host or "url" not in columns(run, table):
        return []
    urls = f"SELECT DISTINCT url FROM {table} WHERE contains(lower(url), $host)"
    same = run.rows(f"{urls} AND {plain} = $wanted AND url <> $url ORDER BY url LIMIT {OFFERED}", host=host, wanted=wanted, url=url)
    if same or not near:
        return [other for (other,) in same]
    like = run.rows(f"{urls} AND starts_with({plain}, $host) ORDER BY url LIMIT {COMPARED}", host=host)
    return difflib.get_close_matches(url, [other for (other,) in like], OFFERED, 0.6)


def find_in_urls(run: Run, stages: Sequence[str], piece: str, limit: int) -> Passages:
    """Finds the documents whose URL holds `piece`, in large or small letters, in the first report that has any; the first `limit` of them,
    the shortest URLs first. Records that hold no page do not count."""
    for stage in stages:
        if {"id", "url", "failed"} <= columns(run, f"{stage}_report").keys():
            where = f"FROM {stage}_report WHERE contains(lower(url), lower($piece)) AND failed <> [{quoted(NO_PAGE)}]"
            chosen = f"SELECT id, min(url) AS url, count(*) OVER () {where} GROUP BY id ORDER BY length(min(url)), 2, id LIMIT {limit}"
            rows = run.rows(chosen, piece=piece)
            if rows:
                return Passages("", rows[0][2], [PassageHolder(id_, url, "", "", "") for id_, url, _ in rows])
    return Passages()


def find_passage(run: Run, passage: str, limit: int) -> Passages:
    """Finds the documents that hold `passage`, ignoring differences in white space, in the earliest stage that has one; details for the
    first `limit`.

    Later stages count only where no earlier one has the passage: a step may have written it.
    """
    words = passage.split()
    found = Passages()
    for stage in DATA_STAGES if words else ():
        if {"id", "url", "text"} <= columns(run, f"{stage}_documents").keys():
            condition, values = holding(words)
            where = f"FROM {stage}_documents WHERE {condition}"
            ((count,),) = run.rows(f"SELECT count(*) {where}", **values)
            rows = run.rows(f"SELECT id, url, text {where} LIMIT {limit}", **values) if count else []
            found = Passages(stage, count, [holder_of(id_, url, text, words) for id_, url, text in rows])
            if count:
                break
    return found


def holding(words: list[str]) -> tuple[str, dict[str, str]]:
    """SQL and its parameters: whether `text` holds these words in a row, with any white space between them."""
    pattern = f"{SPACE}+".join(map(_escaped, words))
    return "contains(text, $longest) AND regexp_matches(text, $pattern)", {"longest": max(words, key=len), "pattern": pattern}


def _escaped(word: str) -> str:
    """Escapes a word for a pattern of RE2, in which only ASCII punctuation has a meaning."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", word)


def holder_of(id_: str, url: str | None, text: str, words: list[str]) -> PassageHolder:
    place = re.search(r"\s+".join(map(re.escape, words)), text)
    begin, end = place.span() if place else (0, 0)
    before, after = text[max(0, begin - AROUND) : begin], text[end : end + AROUND]
    before, after = "…" * (begin > AROUND) + before, after + "…" * (end + AROUND < len(text))
    return PassageHolder(id_, url, before, text[begin:end], after)


def not_found(run: Run, stages: Sequence[str], document: str, offered: list[str] | None = None) -> InputError:
    """Returns the error for an unknown document, with documents that may be meant (searched here where not given)."""
    reader = run.reader
    root = reader.storage.root
    message = f"{root}: no document has the URL or id {safe_line(document, 200)!r}"
    if offered is None:
        offered = spellings(run, stages, document) if is_url(document) else []
    if offered:
        return InputError(f"{message}; there is {', '.join(safe_line(url, 300) for url in offered)}.")
    if given_up := sum(len(state.quarantined) for state in reader.stages.values()):
        message += f", but {given_up:,} tasks were given up, which may have read it (corpusmill verify lists them)"
    where = " (--text searches the texts for it"
    if is_text(document):
        where = ", and neither a URL nor a text holds it (in texts, capitals count"
    return InputError(f"{message}{where}; corpusmill inspect {root} --limit 5 shows some documents).")
