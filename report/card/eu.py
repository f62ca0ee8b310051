"""`corpusmill card --eu`: the public summary of training content for Article 53(1)(d) of the EU's AI Act, as far as a run knows it.

The sections are those of the Commission's template (24 July 2025). What only the provider knows is marked by `TO_ADD`.
"""

from collections import Counter
from dataclasses import dataclass

from corpusmill.ingest.urls.lists import HostReader
from corpusmill.pipeline.storage import Storage
from corpusmill.report import host
from corpusmill.report.card.contents import Contents, iso_codes, read_contents
from corpusmill.report.card.facts import toxic
from corpusmill.report.markdown import environment
from corpusmill.report.queries.origins import read_rights
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.query.run import Run
from corpusmill.report.stale import refuse_stale

FILE = "training-content.md"
TO_ADD = "*to be added by the provider*"
#: The template asks for the domains with the most text that are a tenth of all; of a small company for a twentieth, at most 1,000.
SHARE, SMALL_SHARE, SMALL_MOST = 0.1, 0.05, 1000
#: The sizes of text that the template offers, by their upper ends in tokens.
SIZES = ((1e9, "less than 1 billion tokens"), (1e13, "1 billion to 10 trillion tokens"), (float("inf"), "more than 10 trillion tokens"))
#: Characters of a token, where the run has no tokens: a rough figure for English.
CHARACTERS_A_TOKEN = 4.5


@dataclass(frozen=True)
class Domain:
    """A registered domain, the documents that the run keeps of it, and their characters."""

    name: str
    documents: int
    characters: int


def write_summary(run: str, output: str | None = None, small: bool = False, although_stale: bool = False) -> str:
    """Writes the summary into `output` (the run folder by default) and returns its path. `small`: as the template lets small companies do.

    Raises InputError if `run` is not a run or has no documents, and if they are stale.
    """
    summary = read_summary(run, deep=False)
    target = Storage(output or run)
    target.write_bytes(FILE, make_summary(summary, small, although_stale).encode("utf-8", "replace"))
    return target.path(FILE)


def make_summary(summary: Summary, small: bool = False, although_stale: bool = False) -> str:
    with Run(summary.reader) as run:
        contents = read_contents(run)
        domains = read_domains(run, contents)
        rights = read_rights(run)
    licences = [(name, count) for name, count in (contents.licences or Counter()).most_common() if name != host.NONE]
    stale = refuse_stale(summary.reader, contents.stage, although_stale)
    characters = sum(domain.characters for domain in domains)
    tokens = sum(split["tokens"] for split in summary.tokens.values()) if summary.tokens else None
    size = next(words for most, words in SIZES if (tokens or characters / CHARACTERS_A_TOKEN) < most)
    most = max(1, round(len(domains) * (SMALL_SHARE if small else SHARE)))
    shown = [domain for domain in domains if domain.name != host.NONE][: min(most, SMALL_MOST) if small else most]
    inputs = summary.reader.description.get("inputs") or []
    facts = {
        "to_add": TO_ADD, "stale": stale, "run": summary.reader.name, "contents": contents, "summary": summary, "small": small,
        "characters": characters, "tokens": tokens, "size": size, "domains": shown, "all_domains": len(domains),
        "languages": iso_codes(contents.languages) if contents.languages else [], "licences": licences,
        "models": contents.models.most_common(),
        "rights": rights.rows if rights else None, "toxic": toxic(summary),
        "datasets": [name for name in map(str, inputs) if name.startswith("hf://")],
        "crawls": [name for name in map(str, inputs) if not name.startswith("hf://")],
    }  # fmt: skip
    text: str = environment("corpusmill.report.card").get_template("eu.md.jinja").render(facts)
    return text


def read_domains(run: Run, contents: Contents) -> list[Domain]:
    """Reads the registered domains of the documents, those with the most text first."""
    reader = HostReader()
    sums: dict[str, tuple[int, int]] = {}
    rows = run.rows(f"SELECT {host.SQL} AS host, count(*), sum(length(text))::BIGINT FROM {contents.stage}_documents GROUP BY ALL")
    for name, documents, characters in rows:
        found = reader.read(name or "").domain or name or host.NONE
        before = sums.get(found, (0, 0))
        sums[found] = before[0] + documents, before[1] + characters
    return sorted((Domain(name, *counts) for name, counts in sums.items()), key=lambda domain: (-domain.characters, domain.name))
