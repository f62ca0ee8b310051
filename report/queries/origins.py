"""Counts documents and characters by language, page type, crawl file, host, encoding: those that came in, those left after each stage."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from corpusmill.filters.language_codes import named
from corpusmill.ingest.charset import canonical
from corpusmill.pipeline.safe import safe_line
from corpusmill.report import host
from corpusmill.report.queries.ask import Query, ask, columns
from corpusmill.report.queries.rules import Decisions
from corpusmill.report.query.run import Run
from corpusmill.report.query.sql import column

#: Rows of a table on the page; the others are added up in one row.
SHOWN = 25
#: Rows shown of the names that lose most, and the documents that such a name must have had.
LOSERS, FEWEST = 10, 20
#: A name loses most where it keeps less than this part of the average share.
FAR = 0.5
#: Record types that are UTF-8 by their format and name no encoding.
TEXTS = ("line", "row", "conversion")
#: Languages that the warnings and the last lines of a run name.
MOST_DROPPED = 3
#: A rule's row for a language is shown where it drops `MORE` times as large a share of it as of all others. It may not suit a language
#: that the recipe keeps where that is `UNLIKE` times, and at least the share `LEAST`.
MORE, UNLIKE, LEAST = 2, 10, 0.01
TITLES = {"language": "Language", "page_type": "Page type", "license": "Licence", "source": "Crawl file", "url": "Host"}
ENCODINGS = ("encoding", "encoding_claimed", "record_type")


@dataclass(frozen=True)
class Origin:
    """Documents and characters by one property: those that came in, then those after each of `stages`.

    `shown`: the most frequent of `names` names, then all others in one row: name, documents and characters. `losers`: names that keep less
    than half of the average share: name, documents before and after.
    """

    title: str
    column: str
    stages: tuple[str, ...]
    names: int
    shown: list[tuple[str, list[int], list[int]]]
    losers: list[tuple[str, int, int]]
    kept_share: float
    query: Query

    @property
    def left(self) -> list[str]:
        """The shown names of which documents are left after the last stage."""
        return [name for name, documents, _ in self.shown if documents[-1]]


def biggest_loss(documents: Sequence[int]) -> int | None:
    """Returns the number (from 1) of the stage that removes most; None if nothing is lost."""
    losses = [a - b for a, b in pairwise(documents)]
    return 1 + losses.index(max(losses)) if losses and max(losses) > 0 else None


def read_origins(run: Run, decisions: Mapping[str, Decisions]) -> list[Origin]:
    """Reads the origins for which the run has columns and documents."""
    found = [_origin(run, name, list(decisions)) for name in TITLES]
    return [origin for origin in (*found, _encodings(run) if "ingest" in decisions else None) if origin is not None]


def _origin(run: Run, name: str, stages: Sequence[str]) -> Origin | None:
    """Counts by one column, from the first report that has it on. Later stages whose report lacks the column are joined to that report by
    id."""
    by_report = [stage for stage in stages if name in columns(run, f"{stage}_report")]
    if not by_report:
        return None
    named = f"{host.RAW if name == 'url' else f'{column(name)}::VARCHAR'} AS name"
    lowered = f"nullif({host.lowered('name')}, '')" if name == "url" else "name"
    parts = [f"SELECT {named}, count(*) AS documents_in, sum(chars_in) AS characters_in FROM {by_report[0]}_report GROUP BY name"]
    passed: list[str] = []
    for stage in stages[stages.index(by_report[0]) :]:
        summed = f"count(*) AS documents_{stage}, sum(chars_out) AS characters_{stage}"
        if stage in by_report:
            parts.append(f"SELECT {named}, {summed} FROM {stage}_report WHERE kept GROUP BY name")
        else:
            known = f"SELECT id, any_value({column(name)}) AS {column(name)} FROM {by_report[0]}_report GROUP BY id"
            parts.append(f"SELECT {named}, {summed} FROM {stage}_report LEFT JOIN ({known}) USING (id) WHERE kept GROUP BY name")
        passed.append(stage)
    counts = [f"{count}_{when}" for when in ("in", *passed) for count in ("documents", "characters")]
    sums = ", ".join(f"coalesce(sum({count}), 0)::BIGINT AS {count}" for count in counts)
    union = "\n  UNION ALL BY NAME ".join(parts)
    last = passed[-1]
    query = ask(run, f"origin-{name.replace('_', '-')}", f"{TITLES[name]}: before and after", f"""\
WITH summed AS (
  SELECT coalesce({lowered}, '{host.NONE}') AS name, {sums}
  FROM ({union})
  GROUP BY ALL
), placed AS (
  SELECT *, row_number() OVER (ORDER BY documents_in DESC, name) AS place, count(*) OVER () AS names,
    sum(documents_{last}) OVER () / nullif(sum(documents_in) OVER (), 0) AS kept_of_all
  FROM summed
), lost AS (
  SELECT * FROM placed WHERE documents_in >= {FEWEST} AND documents_{last} < {FAR} * kept_of_all * documents_in
  ORDER BY kept_of_all * documents_in - documents_{last} DESC, place LIMIT {LOSERS}
)
SELECT *, documents_{last} / nullif(documents_in, 0) AS documents_share, characters_{last} / nullif(characters_in, 0) AS characters_share
FROM (
  SELECT if(place > {SHOWN}, format('{{:,}} others', count(*)), any_value(name)) AS name, {sums}, place,
    any_value(names) AS names, any_value(kept_of_all) AS kept_of_all, false AS loses_most
  FROM (SELECT * REPLACE (least(place, {SHOWN + 1}) AS place) FROM placed)
  GROUP BY place
  UNION ALL SELECT name, {", ".join(counts)}, place, names, kept_of_all, true FROM lost
)
ORDER BY loses_most, if(loses_most, documents_{last} - kept_of_all * documents_in, 0), place""")  # fmt: skip
    return None if not query.rows else _made(TITLES[name], name, tuple(passed), query)


def _made(title: str, name: str, stages: tuple[str, ...], query: Query) -> Origin:
    rows = [row for row in query.rows if not row["loses_most"]]
    shown = [
        (row["name"], *([row[f"{count}_{when}"] for when in ("in", *stages)] for count in ("documents", "characters"))) for row in rows
    ]
    losers = [(row["name"], row["documents_in"], row[f"documents_{stages[-1]}"]) for row in query.rows if row["loses_most"]]
    return Origin(title, name, stages, query.first["names"], shown, losers, query.first["kept_of_all"] or 0.0, query)


def read_rights(run: Run) -> Query | None:
    """Reads by signal of the step `rights` its documents, hosts and characters, how many of them the filter keeps, and the tokens that are
    trained on (null: there are none yet); None without the step."""
    signals = [name for name in columns(run, "filter_report") if name.startswith("rights_")]
    if not signals:
        return None
    splits = [name for name in ("tokens_train", "tokens_validation") if name in run.names]
    tokens = " UNION ALL ".join(f"SELECT id, tokens FROM {name}" for name in splits) or "SELECT NULL::VARCHAR AS id, NULL AS tokens"
    return ask(run, "rights", "Reservations and licences", f"""\
WITH encoded AS (SELECT id, sum(tokens) AS tokens FROM ({tokens}) GROUP BY id)
SELECT signal, count(*) AS documents, count(DISTINCT {host.SQL}) AS hosts, sum(chars_in)::BIGINT AS characters,
  count(*) FILTER (kept) AS kept, sum(tokens)::BIGINT AS tokens
FROM (UNPIVOT (SELECT id, url, chars_in, kept, {", ".join(signals)} FROM filter_report)
  ON {", ".join(signals)} INTO NAME signal VALUE value) LEFT JOIN encoded USING (id)
WHERE value > 0
GROUP BY signal
ORDER BY documents DESC, signal""")  # fmt: skip


def read_by_language(run: Run, stage: str = "filter") -> Query | None:
    """Reads which rules treat a language otherwise than all others: `MORE` times as large a share of its documents fails, of `FEWEST`
    documents and more; first those that may not suit it (`unlike`), then by documents that fail. Rules about the language itself are left
    out.

    None if there is no such rule."""
    if "language" not in columns(run, f"{stage}_report"):
        return None
    query = ask(run, "rules-by-language", "Rules by language", f"""\
WITH rows AS (SELECT coalesce(language, '{host.NONE}') AS language, failed FROM {stage}_report),
  sizes AS (
    SELECT language, count(*) AS documents, sum(count(*)) OVER () - documents AS others,
      count(*) FILTER (NOT list_contains(failed, 'language')) > 0 AS wanted
    FROM rows GROUP BY language
  ),
  failing AS (SELECT language, unnest(list_distinct(failed)) AS rule FROM rows),
  fired AS (SELECT language, rule, count(*) AS dropped FROM failing GROUP BY ALL),
  every AS (SELECT *, sum(dropped) OVER (PARTITION BY rule) - dropped AS dropped_others FROM fired JOIN sizes USING (language))
SELECT language, rule, documents, dropped, dropped / documents AS share, dropped_others / others AS share_of_others,
  share / ((dropped_others + 1) / (others + 1)) AS times, wanted AND times >= {UNLIKE} AND share >= {LEAST} AS unlike
FROM every
WHERE dropped >= {FEWEST} AND others >= {FEWEST} AND times >= {MORE} AND NOT starts_with(rule, 'language')
ORDER BY unlike DESC, dropped DESC, language, rule
LIMIT {SHOWN}""")  # fmt: skip
    return query if query.rows else None


def dropped_languages(run: Run) -> str:
    """Returns the languages of which the rule `language` dropped most documents, with their counts, as words; empty without."""
    if "language" not in columns(run, "filter_report"):
        return ""
    rows = run.rows(
        "SELECT language, count(*) AS documents FROM filter_report WHERE list_contains(failed, 'language') "
        f"GROUP BY language ORDER BY documents DESC, language LIMIT {MOST_DROPPED}"
    )
    return ", ".join(f"{safe_line(named(code), 40)} {documents:,}" for code, documents in rows)


def _encodings(run: Run) -> Origin | None:
    """Counts pages by the encoding used, and by the claimed one where it differs or is missing. SQL does not know which claims mean the
    same encoding (`latin1`, `windows-1252`), so Python names the rows."""
    if not set(ENCODINGS) <= columns(run, "ingest_report").keys():
        return None
    query = ask(run, "encodings", "Encodings", """
        SELECT encoding, encoding_claimed, record_type, count(*) AS documents_in, sum(chars_in)::BIGINT AS characters_in,
          count(*) FILTER (kept) AS documents_ingest, coalesce(sum(chars_out) FILTER (kept), 0)::BIGINT AS characters_ingest
        FROM ingest_report
        WHERE encoding IS NOT NULL
        GROUP BY encoding, encoding_claimed, record_type
        ORDER BY documents_in DESC, encoding, encoding_claimed, record_type
    """)  # fmt: skip
    sums: dict[str, Counter[str]] = {}
    names = [f"{count}_{when}" for when in ("in", "ingest") for count in ("documents", "characters")]
    for row in query.rows:
        of = sums.setdefault(_encoding(str(row["encoding"]), row["encoding_claimed"], str(row["record_type"])), Counter())
        of.update({name: row[name] or 0 for name in names})
    ordered = sorted(sums.items(), key=lambda pair: (-pair[1]["documents_in"], pair[0]))
    rows = ordered[:SHOWN]
    if ordered[SHOWN:]:
        rows.append((f"{len(ordered) - SHOWN:,} others", sum((of for _, of in ordered[SHOWN:]), Counter())))
    shown = [(name, [of["documents_in"], of["documents_ingest"]], [of["characters_in"], of["characters_ingest"]]) for name, of in rows]
    return Origin("Encoding", "encoding", ("ingest",), len(ordered), shown, [], 0.0, query) if shown else None


def _encoding(used: str, claimed: str | None, kind: str) -> str:
    if claimed is None:
        return used if kind in TEXTS else f"{used}, nothing claimed"
    return used if canonical(claimed) == used else f"{used}, claimed {claimed}"
