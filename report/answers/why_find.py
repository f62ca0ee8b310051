"""Which documents are meant by a URL, an id, the beginning of one, or a passage of text."""

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.ask import columns
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import quoted
from corpusmill.report.read import DATA_STAGES

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


def resolve(run: Run, stages: Sequence[str], document: str) -> list[str]:
    """The ids of the documents with this URL, this id, or the one id that begins so; empty where there is none."""
    whole = re.fullmatch("[0-9a-f]{32}", document)
    found = _ids(run, stages, "id = $document" if whole else "id = $document OR url = $document", document)
    if found or not _ID.fullmatch(document):
        return found
    found = _ids(run, stages, "starts_with(id, $document)", document)
    if len(found) > 1:
        some = ", ".join(sorted(found)[:4])
        raise InputError(f"{document}: {len(found):,} documents have an id that begins so ({some}, ...); give more of it.")
    return found


def _ids(run: Run, stages: Sequence[str], condition: str, document: str) -> list[str]:
    """The ids of the rows of the first report that has any which meet a condition."""
    for stage in stages:
        if {"id", "url"} <= columns(run, f"{stage}_report").keys():
            rows = run.sql(f"SELECT id::VARCHAR FROM {stage}_report WHERE {condition}", document=document).fetchall()
            if rows:
                return list(dict.fromkeys(id_ for (id_,) in rows))
    return []


def is_url(document: str) -> bool:
    return _URL.fullmatch(document.strip()) is not None


def is_text(document: str) -> bool:
    """Whether what is asked for can only be a passage: it is neither a URL nor an id."""
    return not is_url(document) and not _ID.fullmatch(document)


def spellings(run: Run, stages: Sequence[str], url: str, near: bool = True) -> list[str]:
    """URLs of the run that are `url` in another spelling, else (where `near`) those of its host that are most like it; the best first."""
    wanted, plain = url.strip().lower(), "lower(url)"
    for pattern in _SPELLING:
        wanted, plain = re.sub(pattern, "", wanted), f"regexp_replace({plain}, {quoted(pattern)}, '')"
    host, table = re.split("[/?]", wanted)[0], f"{stages[0]}_report"
    if not host or "url" not in columns(run, table):
        return []
    urls = f"SELECT DISTINCT url FROM {table} WHERE contains(lower(url), $host)"
    same = run.sql(
        f"{urls} AND {plain} = $wanted AND url <> $url ORDER BY url LIMIT {OFFERED}", host=host, wanted=wanted, url=url
    ).fetchall()
    if same or not near:
        return [other for (other,) in same]
    like = run.sql(f"{urls} AND starts_with({plain}, $host) ORDER BY url LIMIT {COMPARED}", host=host).fetchall()
    return difflib.get_close_matches(url, [other for (other,) in like], OFFERED, 0.6)


def find_passage(run: Run, passage: str, limit: int) -> Passages:
    """The documents that hold `passage`, all white space being equal, in the earliest stage where one does; the first `limit` in full.

    Later stages count only where no earlier one has it: a step may have written what is looked for.
    """
    words = passage.split()
    found = Passages()
    for stage in DATA_STAGES if words else ():
        if {"id", "url", "text"} <= columns(run, f"{stage}_documents").keys():
            condition, values = holding(words)
            where = f"FROM {stage}_documents WHERE {condition}"
            ((count,),) = run.sql(f"SELECT count(*) {where}", **values).fetchall()
            rows = run.sql(f"SELECT id, url, text {where} LIMIT {limit}", **values).fetchall() if count else []
            found = Passages(stage, count, [holder_of(id_, url, text, words) for id_, url, text in rows])
            if count:
                break
    return found


def holding(words: list[str]) -> tuple[str, dict[str, str]]:
    """SQL, with its parameters: that `text` holds these words in a row, with any white space between them."""
    pattern = f"{SPACE}+".join(map(_escaped, words))
    return "contains(text, $longest) AND regexp_matches(text, $pattern)", {"longest": max(words, key=len), "pattern": pattern}


def _escaped(word: str) -> str:
    """A word as a pattern of RE2, which takes any character but ASCII punctuation for itself."""
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", word)


def holder_of(id_: str, url: str | None, text: str, words: list[str]) -> PassageHolder:
    place = re.search(r"\s+".join(map(re.escape, words)), text)
    begin, end = place.span() if place else (0, 0)
    before, after = text[max(0, begin - AROUND) : begin], text[end : end + AROUND]
    before, after = "…" * (begin > AROUND) + before, after + "…" * (end + AROUND < len(text))
    return PassageHolder(id_, url, before, text[begin:end], after)


def not_found(run: Run, stages: Sequence[str], document: str, offered: list[str] | None = None) -> InputError:
    """The sentence for a document that the run does not know, with what may have been meant (found here where it is not given)."""
    reader = run.reader
    root = reader.storage.root
    said = f"{root}: no document has the URL or id {safe_line(document, 200)!r}"
    if offered is None:
        offered = spellings(run, stages, document) if is_url(document) else []
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
