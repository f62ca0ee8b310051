"""What becomes of each document in two runs: kept, or dropped in which stage by which rules; matched by id.

Equal ids within a run (a page that a crawl holds twice) are matched one to one, kept ones first. All is SQL on DuckDB, which uses the
disk where memory is short.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.report.query.run import Run, open_run
from corpusmill.pipeline.report.safe import safe_line

#: What DuckDB may take before it uses the disk.
MEMORY = "1GB"
SIDES = ("a", "b")


@dataclass
class Counts:
    """Documents and their characters, and their tokens (None where a run has none): `characters` as a run keeps them, or, of documents
    that neither keeps, as they came in."""

    documents: int = 0
    characters: int = 0
    tokens: int | None = None


@dataclass
class RuleCount:
    """One rule in both runs: how many documents it fails, how many of these the other run keeps, and how many of those fail no other."""

    stage: str
    rule: str
    fired: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    other_keeps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    alone: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))

    @property
    def weight(self) -> int:
        return sum(self.other_keeps.values())


@dataclass
class Pair:
    """Two runs in one database: the tables `fate_a`, `fate_b` (a row a document) and `matched` (a row a document of either)."""

    runs: dict[str, Run]
    stages: list[str]
    connection: duckdb.DuckDBPyConnection

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query. Raises InputError where a file can't be read."""
        with _one_sentence(self.runs):
            return self.connection.execute(sql, list(values)).fetchall()

    def scan(self, side: str, table: str) -> str:
        return self.runs[side].scan(table)


@contextmanager
def open_pair(a: str, b: str, stage: str | None) -> Iterator[Pair]:
    """Both runs, matched up to the last stage that both have (or within `stage`). Raises InputError where there is none."""
    runs = {"a": open_run(a), "b": open_run(b)}
    stages = _stages(runs, stage)
    connection = runs["a"].connection
    with _one_sentence(runs):
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET preserve_insertion_order = false")
        pair = Pair(runs, stages, connection)
        _match(pair)
        yield pair
    for run in runs.values():
        run.close()


@contextmanager
def _one_sentence(runs: dict[str, Run]) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        roots = " and ".join(run.reader.storage.root for run in runs.values())
        raise InputError(f"{roots}: can't be compared ({safe_line(str(error), 300)}).") from error


def _stages(runs: dict[str, Run], stage: str | None) -> list[str]:
    """The stages whose decisions count. `tokens` only where it is asked for: it decides nothing about most corpora."""
    there = {
        side: [name for name in ("ingest", "filter", "dedup", "tokens") if f"{name}_report" in run.tables and run.reader.is_report(name)]
        for side, run in runs.items()
    }
    for side, names in there.items():
        root = runs[side].reader.storage.root
        if not names:
            raise InputError(f"{root}: no stage of this run has a report yet.")
        if stage is not None and stage not in names:
            raise InputError(f"{root}: the stage '{safe_line(stage, 80)}' has no report (there are {', '.join(names)}).")
    if stage is not None:
        return [stage]
    shared = [name for name in there["a"] if name in there["b"] and name != "tokens"]
    if not shared:
        raise InputError(f"{runs['a'].reader.storage.root} and {runs['b'].reader.storage.root}: no stage has a report in both.")
    return shared


def _match(pair: Pair) -> None:
    for side in SIDES:
        pair.connection.execute(f"CREATE TABLE raw_{side} AS {_fates(pair, side)}")
        pair.connection.execute(numbered(f"raw_{side}", f"fate_{side}", "kept DESC, level DESC, len(failed), array_to_string(failed, ',')"))
        pair.connection.execute(f"DROP TABLE raw_{side}")
    pair.connection.execute(
        "CREATE TABLE matched AS SELECT coalesce(a.id, b.id) AS id, coalesce(a.copy, b.copy) AS copy, a.kept AS kept_a, b.kept AS kept_b, "
        "a.level AS level_a, b.level AS level_b, a.characters AS characters_a, b.characters AS characters_b "
        "FROM fate_a a FULL JOIN fate_b b ON a.id = b.id AND a.copy = b.copy"
    )


def _fates(pair: Pair, side: str) -> str:
    """SQL: (id, kept, level, failed, characters), a row a document. Records that hold no page (requests) are left out.

    A document is dropped by one stage or kept by the last: these rows of the stages' reports are all documents, once each.
    """
    parts = []
    for level, stage in enumerate(pair.stages):
        last = level == len(pair.stages) - 1
        parts.append(
            f"SELECT id, kept, {level} AS level, failed, CASE WHEN kept THEN chars_out ELSE chars_in END AS characters "
            f"FROM {pair.scan(side, f'{stage}_report')} WHERE failed != ['record_type']{'' if last else ' AND NOT kept'}"
        )
    return " UNION ALL ".join(parts)


def numbered(source: str, target: str, order: str) -> str:
    """SQL: the table `target` is `source` with `copy`, the number (from 0) of a row among those of its id. Few ids are there twice, so
    only those are sorted."""
    twice = f"SELECT id FROM {source} GROUP BY id HAVING count(*) > 1"
    return (
        f"CREATE TABLE {target} AS WITH twice AS MATERIALIZED ({twice}) "
        f"SELECT *, 0 AS copy FROM {source} WHERE id NOT IN (FROM twice) UNION ALL "
        f"SELECT *, row_number() OVER (PARTITION BY id ORDER BY {order}) - 1 FROM {source} WHERE id IN (FROM twice)"
    )


def read_counts(pair: Pair) -> dict[str, Counts]:
    """Documents by outcome: `both`, `only_a`, `only_b`, `neither`, and of those that one run alone has seen `kept_unseen_b`,
    `dropped_unseen_b` and so on."""
    counts: dict[str, Counts] = {}
    sql = "SELECT kept_a, kept_b, count(*), sum(characters_a), sum(characters_b) FROM matched GROUP BY ALL"
    for kept_a, kept_b, documents, characters_a, characters_b in pair.query(sql):
        characters = characters_a if kept_a or not kept_b else characters_b
        counts[_outcome(kept_a, kept_b)] = Counts(documents, int((characters if characters is not None else characters_b) or 0))
    if all("tokens_report" in run.tables for run in pair.runs.values()) and pair.stages != ["tokens"]:
        _count_tokens(pair, counts)
    return counts


def _outcome(kept_a: bool | None, kept_b: bool | None) -> str:
    if kept_a is None or kept_b is None:
        kept, unseen = (kept_b, "a") if kept_a is None else (kept_a, "b")
        return f"{'kept' if kept else 'dropped'}_unseen_{unseen}"
    return {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}[kept_a, kept_b]


def _count_tokens(pair: Pair, counts: dict[str, Counts]) -> None:
    """Adds the tokens of what the first run keeps, or, where it does not, the second: each with its own tokenizer."""
    for side in SIDES:
        scan = pair.scan(side, "tokens_report")
        pair.connection.execute(f"CREATE TABLE raw_tokens AS SELECT id, tokens FROM {scan}")
        pair.connection.execute(numbered("raw_tokens", f"tokens_{side}", "tokens DESC"))
        pair.connection.execute("DROP TABLE raw_tokens")
        sql = f"SELECT kept_a, kept_b, sum(tokens) FROM matched JOIN tokens_{side} USING (id, copy) WHERE kept_{side} GROUP BY ALL"
        for kept_a, kept_b, tokens in pair.query(sql):
            if side == "a" or not kept_a:
                counts[_outcome(kept_a, kept_b)].tokens = int(tokens or 0)


def read_rules(pair: Pair) -> list[RuleCount]:
    """All rules that failed a document in either run: first those that decide most about documents that the other run keeps."""
    found: dict[tuple[str, str], RuleCount] = {}
    for side, other in (SIDES, SIDES[::-1]):
        sql = (
            f"SELECT f.level, rule, count(*), count(*) FILTER (m.kept_{other}), count(*) FILTER (m.kept_{other} AND f.alone) FROM "
            f"(SELECT id, copy, level, unnest(list_distinct(failed)) AS rule, len(failed) = 1 AS alone FROM fate_{side} WHERE NOT kept) f "
            "JOIN matched m USING (id, copy) GROUP BY ALL"
        )
        for level, rule, fired, kept, alone in pair.query(sql):
            stage = pair.stages[level]
            one = found.setdefault((stage, rule), RuleCount(stage, rule))
            one.fired[side], one.other_keeps[side], one.alone[side] = fired, kept, alone
    return sorted(found.values(), key=lambda one: (-one.weight, -sum(one.fired.values()), one.stage, one.rule))


def read_properties(pair: Pair) -> dict[str, list[tuple[str, int, int]]]:
    """Of what each run keeps, documents by language, host and crawl file: (value, of the first run, of the second), the largest
    differences first. Only what the last stage's documents say in both runs; empty where a run has no documents there."""
    from corpusmill.pipeline.report.choose import HOST

    table = f"{pair.stages[-1]}_documents"
    if any(table not in run.tables for run in pair.runs.values()):
        return {}
    columns = [{str(row[0]) for row in pair.query(f"DESCRIBE SELECT * FROM {pair.scan(side, table)}")} for side in SIDES]
    properties = {"language": "language", "host": HOST, "source": "source"}
    needed = {"host": "url"}
    found = {}
    for name, value in properties.items():
        if all(needed.get(name, name) in there for there in columns):
            counts = [dict(pair.query(f"SELECT {value}, count(*) FROM {pair.scan(side, table)} GROUP BY 1")) for side in SIDES]
            names = {*counts[0], *counts[1]}
            rows = [(str(n) if n else "(none)", counts[0].get(n, 0), counts[1].get(n, 0)) for n in names]
            found[name] = sorted(rows, key=lambda row: (-abs(row[2] - row[1]), -row[1] - row[2], row[0]))
    return found
