"""Matches the documents of two runs by id, with each run's decision: kept, or dropped in which stage by which rules.

Equal ids within a run (a page that a crawl holds twice) are matched one to one, kept ones first. DuckDB does all of it, and uses the disk
where memory is short.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.report import host
from corpusmill.report.query.run import Run, open_run
from corpusmill.report.query.sql import allow_store

#: Memory that DuckDB may take before it uses the disk.
MEMORY = "1GB"
SIDES = ("a", "b")
#: The stages that decide about documents, in their order.
ORDER = ("ingest", "filter", "dedup", "tokens")


@dataclass
class Counts:
    """Documents with their characters and tokens (None if a run has no tokens). Kept documents count the characters kept, documents that
    neither run keeps those of the input."""

    documents: int = 0
    characters: int = 0
    tokens: int | None = None


@dataclass
class RulePair:
    """A rule, with counts of documents for each run. `fired`: those that fail it. `other_keeps`: those of them that the other run keeps.
    `alone`: those of `other_keeps` that fail no other rule."""

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
    """Two runs in one database: the tables `fate_a` and `fate_b` (one row for each document of a run) and `matched` (one for each document
    of either).

    `chains`: the deciding stages of each run, up to the last stage that both have. `stages`: those that both have.
    """

    runs: dict[str, Run]
    chains: dict[str, list[str]]
    connection: duckdb.DuckDBPyConnection

    @property
    def stages(self) -> list[str]:
        return [name for name in self.chains["a"] if name in self.chains["b"]]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a query over this pair's tables."""
        return self.connection.execute(sql).fetchall()

    def read(self, side: str, sql: Callable[[], str]) -> list[tuple[Any, ...]]:
        """Returns the rows of a query over one run's files; leaves out damaged shards that it meets. Raises InputError."""
        run = self.runs[side]
        return run.guarded(lambda: self.connection.execute(sql()).fetchall(), lambda: " ".join(run.tables))

    def scan(self, side: str, table: str) -> str:
        run = self.runs[side]
        if table not in run.tables:
            raise InputError(f"{run.reader.storage.root}: {table}: none of its shards can be read.")
        return run.scan(table)


@contextmanager
def open_pair(a: str, b: str, stage: str | None) -> Iterator[Pair]:
    """Opens two runs, matched up to the last stage that both have, or within `stage`. Raises InputError if there is none."""
    runs = {"a": open_run(a), "b": open_run(b)}
    allow_store(runs["a"].connection, runs["b"].reader.storage)
    pair = Pair(runs, _chains(runs, stage), runs["a"].connection)
    try:
        pair.connection.execute(f"SET memory_limit = '{MEMORY}'")
        pair.connection.execute("SET preserve_insertion_order = false")
        _match(pair)
        yield pair
    except duckdb.Error as error:
        raise InputError(f"{a} and {b}: can't be compared ({safe_line(str(error), 300)}).") from error
    finally:
        for run in runs.values():
            run.close()


def _chains(runs: dict[str, Run], stage: str | None) -> dict[str, list[str]]:
    """Returns the stages whose decisions count. `tokens` counts only where it is asked for, since it drops nothing from most corpora."""
    there = {side: [name for name in ORDER if f"{name}_report" in run.tables and run.reader.is_report(name)] for side, run in runs.items()}
    for side, names in there.items():
        runs[side].reader.require_report(stage, names)
    if stage is not None:
        return {"a": [stage], "b": [stage]}
    last = next((name for name in reversed(ORDER[:-1]) if name in there["a"] and name in there["b"]), None)
    if last is None:
        raise InputError(f"{runs['a'].reader.storage.root} and {runs['b'].reader.storage.root}: no stage has a report in both.")
    return {side: [name for name in names if ORDER.index(name) <= ORDER.index(last)] for side, names in there.items()}


def _match(pair: Pair) -> None:
    for side in SIDES:
        _read_fates(pair, side)
        pair.query(numbered(f"raw_{side}", f"fate_{side}", "kept DESC, level DESC, len(failed), array_to_string(failed, ',')"))
        pair.query(f"DROP TABLE raw_{side}")
    pair.query(
        "CREATE TABLE matched AS SELECT coalesce(a.id, b.id) AS id, coalesce(a.copy, b.copy) AS copy, a.kept AS kept_a, b.kept AS kept_b, "
        "a.level AS level_a, b.level AS level_b, a.characters AS characters_a, b.characters AS characters_b "
        "FROM fate_a a FULL JOIN fate_b b ON a.id = b.id AND a.copy = b.copy"
    )


def _read_fates(pair: Pair, side: str) -> None:
    pair.read(side, lambda: f"CREATE OR REPLACE TABLE raw_{side} AS {_fates(pair, side)}")


def _fates(pair: Pair, side: str) -> str:
    """SQL: (id, kept, level, failed, characters), one row for each document. Records that hold no page (requests) are left out.

    A document is dropped by one stage or kept by the last, so these report rows name each document once.
    """
    parts = []
    for stage in pair.chains[side]:
        last = stage == pair.chains[side][-1]
        parts.append(
            f"SELECT id, kept, {ORDER.index(stage)} AS level, failed, CASE WHEN kept THEN chars_out ELSE chars_in END AS characters "
            f"FROM {pair.scan(side, f'{stage}_report')} WHERE failed != ['record_type']{'' if last else ' AND NOT kept'}"
        )
    return " UNION ALL ".join(parts)


def numbered(source: str, target: str, order: str) -> str:
    """SQL: makes the table `target` from `source` with a column `copy`, the number (from 0) of a row among those with its id. Only repeated
    ids are sorted; there are few."""
    twice = f"SELECT id FROM {source} GROUP BY id HAVING count(*) > 1"
    return (
        f"CREATE TABLE {target} AS WITH twice AS MATERIALIZED ({twice}) "
        f"SELECT *, 0 AS copy FROM {source} WHERE id NOT IN (FROM twice) UNION ALL "
        f"SELECT *, row_number() OVER (PARTITION BY id ORDER BY {order}) - 1 FROM {source} WHERE id IN (FROM twice)"
    )


def read_counts(pair: Pair) -> dict[str, Counts]:
    """Counts documents by outcome: `both`, `only_a`, `only_b`, `neither`. Documents that only one run has seen count as `kept_unseen_b`,
    `dropped_unseen_b` and so on."""
    counts: dict[str, Counts] = {}
    sql = "SELECT kept_a, kept_b, count(*), sum(characters_a), sum(characters_b) FROM matched GROUP BY ALL ORDER BY ALL"
    for kept_a, kept_b, documents, characters_a, characters_b in pair.query(sql):
        characters = characters_a if kept_a or not kept_b else characters_b
        counts[_outcome(kept_a, kept_b)] = Counts(documents, int((characters if characters is not None else characters_b) or 0))
    if _has_tokens(pair):
        _count_tokens(pair, counts)
    return counts


def _outcome(kept_a: bool | None, kept_b: bool | None) -> str:
    if kept_a is None or kept_b is None:
        kept, unseen = (kept_b, "a") if kept_a is None else (kept_a, "b")
        return f"{'kept' if kept else 'dropped'}_unseen_{unseen}"
    return {(True, True): "both", (True, False): "only_a", (False, True): "only_b", (False, False): "neither"}[kept_a, kept_b]


def _has_tokens(pair: Pair) -> bool:
    """Whether both runs have encoded the output of the last compared stage: no stage lies between it and `tokens`."""
    last = ORDER.index(pair.stages[-1])
    later = [f"{name}_report" for name in ORDER[last + 1 : -1]]
    runs = pair.runs.values()
    return ORDER[last] != "tokens" and all("tokens_report" in run.tables and not any(n in run.tables for n in later) for run in runs)


def _read_tokens(pair: Pair, side: str) -> None:
    pair.read(side, lambda: f"CREATE OR REPLACE TABLE raw_tokens AS SELECT id, tokens FROM {pair.scan(side, 'tokens_report')}")


def _count_tokens(pair: Pair, counts: dict[str, Counts]) -> None:
    """Adds the tokens of documents that the first run keeps, else of those that the second keeps; each run counts with its own
    tokenizer."""
    for side in SIDES:
        _read_tokens(pair, side)
        pair.query(numbered("raw_tokens", f"tokens_{side}", "tokens DESC"))
        pair.query("DROP TABLE raw_tokens")
        sql = f"SELECT kept_a, kept_b, sum(tokens) FROM matched JOIN tokens_{side} USING (id, copy) WHERE kept_{side} GROUP BY ALL"
        for kept_a, kept_b, tokens in pair.query(sql):
            if side == "a" or not kept_a:
                counts[_outcome(kept_a, kept_b)].tokens = int(tokens or 0)


def read_rules(pair: Pair) -> list[RulePair]:
    """Returns all rules that failed a document in either run, ordered by how many documents kept by the other run they drop."""
    found: dict[tuple[str, str], RulePair] = {}
    for side, other in (SIDES, SIDES[::-1]):
        sql = (
            f"SELECT f.level, rule, count(*), count(*) FILTER (m.kept_{other}), count(*) FILTER (m.kept_{other} AND f.alone) FROM "
            f"(SELECT id, copy, level, unnest(list_distinct(failed)) AS rule, len(failed) = 1 AS alone FROM fate_{side} WHERE NOT kept) f "
            "JOIN matched m USING (id, copy) GROUP BY ALL"
        )
        for level, rule, fired, kept, alone in pair.query(sql):
            stage = ORDER[level]
            one = found.setdefault((stage, rule), RulePair(stage, rule))
            one.fired[side], one.other_keeps[side], one.alone[side] = fired, kept, alone
    return sorted(found.values(), key=lambda one: (-one.weight, -sum(one.fired.values()), one.stage, one.rule))


def read_properties(pair: Pair) -> dict[str, list[tuple[str, int, int]]]:
    """Counts each run's kept documents by language, host and crawl file: (value, first run, second run), the largest differences first.
    Read from the last stage's documents; empty where a run has none there."""
    table = f"{pair.stages[-1]}_documents"
    if any(table not in run.tables for run in pair.runs.values()):
        return {}

    def read(side: str, select: str, end: str = "") -> list[tuple[Any, ...]]:
        return pair.read(side, lambda: f"{select} FROM {pair.scan(side, table)}{end}")

    columns = [{str(row[0]) for row in read(side, "DESCRIBE SELECT *")} for side in SIDES]
    properties = {"language": "language", "page_type": "page_type", "host": host.SQL, "source": "source"}
    needed = {"host": "url"}
    found = {}
    for name, value in properties.items():
        if all(needed.get(name, name) in there for there in columns):
            counts = [dict(read(side, f"SELECT nullif({value}, ''), count(*)", " GROUP BY 1")) for side in SIDES]
            names = {*counts[0], *counts[1]}
            rows = [(host.NONE if n is None else str(n), counts[0].get(n, 0), counts[1].get(n, 0)) for n in names]
            found[name] = sorted(rows, key=lambda row: (-abs(row[2] - row[1]), -row[1] - row[2], row[0]))
    return found
