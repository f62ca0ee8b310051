"""`diff`: shows which documents two runs decide differently, by which rules, and how the kept documents change."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.printed import Printed
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import REPORT
from corpusmill.pipeline.storage import Storage
from corpusmill.report.answers.choose import TableRows, table_rows
from corpusmill.report.answers.diff_documents import (
    ORDER,
    SIDES,
    Counts,
    Pair,
    RulePair,
    open_pair,
    read_counts,
    read_properties,
    read_rules,
)
from corpusmill.report.answers.sample import add_texts, show_document
from corpusmill.report.queries.values import SAMPLE_ROWS, Bins, measured_columns, plan
from corpusmill.report.query.run import Run, identifier
from corpusmill.report.read import ReportRule, RunReader
from corpusmill.report.tables import cell, limit, number, share, show, show_notes, table

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Floats = npt.NDArray[np.float64]
SEED = 0
#: The share of comparisons in which chance alone may show a changed column.
ERROR = 0.01
#: Rows of the tables; --json has all rows.
RULES, COLUMNS, VALUES, SETTINGS = 15, 12, 8, 40
#: Terminals of at least this width get more columns.
WIDE = 110
#: Shown for a setting that one run lacks.
ABSENT = "(not there)"
SEEN = ("both", "only_a", "only_b", "neither")
OUTCOMES = {
    "both": "kept by both", "only_a": "kept by A only", "only_b": "kept by B only", "neither": "kept by neither",
    "kept_unseen_b": "kept by A, never seen by B", "dropped_unseen_b": "dropped by A, never seen by B",
    "kept_unseen_a": "kept by B, never seen by A", "dropped_unseen_a": "dropped by B, never seen by A",
}  # fmt: skip
#: A table, and the note on rows that are left out.
Shown = tuple[Table, str]


@dataclass(frozen=True)
class DiffOptions:
    """Options of `diff`. `stage`: compare only this stage. `samples`: documents shown for each run. `chars`: characters shown of their
    texts."""

    stage: str | None = None
    samples: int = 3
    chars: int = 400
    all_columns: bool = False


@dataclass
class Distribution:
    """The distribution of a column's values among the documents that a run keeps: values, missing values, mean, and QUANTILES (linear)."""

    values: int
    missing: int
    mean: float | None
    quantiles: list[float] = field(default_factory=list)


@dataclass
class ColumnChange:
    """A column's distributions in both runs. `distance`: the statistic of Kolmogorov and Smirnov, the largest difference between the shares
    of documents below a value; None without values."""

    stage: str
    column: str
    distance: float | None
    runs: dict[str, Distribution]


@dataclass
class OneSided:
    """A document that one run keeps and the other drops: its row in the report of the `stage` that drops it, with its input text, and the
    rules of that stage."""

    stage: str
    row: dict[str, Any]
    rules: list[ReportRule]


def chance(a: int, b: int, shared: int, columns: int) -> float:
    """Returns the Kolmogorov-Smirnov distance that one of `columns` columns exceeds by chance in one comparison of a hundred (`ERROR`), for
    `a` and `b` values of which `shared` are the same documents'.

    The first term of Kolmogorov's series, with Bonferroni's correction. Shared documents cancel out: the variance of the difference of two
    shares is 1/a + 1/b - 2 shared / (a b) times that of one document.
    """
    shared = min(shared, a, b)
    variance = 1 / a + 1 / b - 2 * shared / (a * b) if a and b else 0.0
    return math.sqrt(math.log(2 * columns / ERROR) / 2 * max(variance, 0.0))


@dataclass(repr=False)
class Difference(Printed):
    """The result of comparing two runs. `samples`: documents that only `a` keeps, and that only `b` keeps. `ablations`: the sentences and
    pages of ablations that say which of both makes the better model."""

    folders: dict[str, str]
    stages: list[str]
    counts: dict[str, Counts]
    rules: list[RulePair]
    thresholds: dict[str, dict[tuple[str, str], ReportRule]]
    columns: list[ColumnChange]
    columns_of_one: list[str]
    properties: dict[str, list[tuple[str, int, int]]]
    settings: list[tuple[str, Any, Any]]
    samples: dict[str, list[OneSided]]
    notes: list[str] = field(default_factory=list)
    ablations: list[dict[str, str]] = field(default_factory=list)
    wanted: DiffOptions = field(default_factory=DiffOptions)

    def of(self, name: str) -> Counts:
        return self.counts.get(name, Counts())

    def kept(self, side: str) -> int:
        """Returns how many documents a run keeps."""
        names = ("both", f"only_{side}", f"kept_unseen_{'b' if side == 'a' else 'a'}")
        return sum(self.of(name).documents for name in names)

    def is_beyond_chance(self, change: ColumnChange) -> bool:
        a, b = (change.runs[side].values for side in SIDES)
        return change.distance is not None and change.distance > chance(a, b, self.of("both").documents, len(self.columns))

    def as_json(self) -> dict[str, Any]:
        properties = {n: [{"value": v, "a": a, "b": b} for v, a, b in rows] for n, rows in self.properties.items()}
        return {
            "a": self.folders["a"], "b": self.folders["b"], "stages": self.stages,
            "documents": {name: asdict(counts) for name, counts in self.counts.items()},
            "kept": {"a": self.kept("a"), "b": self.kept("b")},
            "rules": [{**asdict(rule), "threshold": {s: _threshold(self.thresholds[s].get((rule.stage, rule.rule))) for s in self.folders}}
                      for rule in self.rules],
            "quantiles": list(QUANTILES), "columns": [asdict(column) for column in self.columns], "columns_of_one": self.columns_of_one,
            **properties,
            "settings": [{"key": key, "a": a, "b": b} for key, a, b in self.settings],
            "samples": {name: [{"stage": s.stage, **s.row} for s in samples] for name, samples in self.samples.items()},
            "notes": self.notes, "ablations": self.ablations,
        }  # fmt: skip

    def show(self, console: Console) -> None:
        show_difference(self, self.wanted, console)


def other_side(side: str) -> str:
    return "b" if side == "a" else "a"


def _threshold(rule: ReportRule | None) -> dict[str, Any] | None:
    return None if rule is None else {"column": rule.column, "comparison": rule.comparison, "threshold": rule.threshold}


def compare(a: str, b: str, wanted: DiffOptions) -> Difference:
    """Compares the runs in two folders. Raises InputError."""
    with open_pair(a, b, wanted.stage) as pair:
        found = difference(pair)
        found.folders, found.wanted = {"a": a, "b": b}, wanted
        found.columns, found.columns_of_one, _ = read_columns(pair)
        found.samples = {f"only_{side}": _samples(pair, side, wanted) for side in pair.runs}
        found.notes = read_notes(pair)
        return found


def difference(pair: Pair) -> Difference:
    """Compares two runs, but for the values of their documents: `columns` and `samples` are empty."""
    return Difference(
        folders={side: run.reader.storage.root for side, run in pair.runs.items()},
        stages=pair.stages,
        counts=read_counts(pair),
        rules=read_rules(pair),
        thresholds={side: _thresholds(run, pair.chains[side]) for side, run in pair.runs.items()},
        columns=[],
        columns_of_one=[],
        properties=read_properties(pair),
        settings=_changed_settings(pair),
        samples={},
        notes=read_notes(pair),
        ablations=read_ablations(pair),
    )


# ---- what differs --------------------------------------------------------------------------------------


def _thresholds(run: Run, stages: list[str]) -> dict[tuple[str, str], ReportRule]:
    return {(stage, rule.rule): rule for stage in stages for rule in run.rules(stage)}


def read_columns(pair: Pair) -> tuple[list[ColumnChange], list[str], dict[tuple[str, str], TwoHistograms]]:
    """Compares each column that both runs measured, the largest distance first. Also returns the columns that only one run has, as
    `STAGE.COLUMN`, and the histograms by stage and column."""
    changes: list[ColumnChange] = []
    alone: list[str] = []
    histograms: dict[tuple[str, str], TwoHistograms] = {}
    for stage in pair.stages:
        both, one = _measured_by_both(pair, stage)
        alone += [f"{stage}.{name}" for name in one]
        if both:
            for side in SIDES:
                _keep_values(pair, side, stage, both)
            for place, name in enumerate(both):
                change, histograms[stage, name] = _change(pair, stage, place, name)
                changes.append(change)
            for side in SIDES:
                pair.query(f"DROP TABLE values_{side}")
    return sorted(changes, key=lambda change: -1 if change.distance is None else change.distance, reverse=True), alone, histograms


@dataclass
class TwoHistograms:
    """How the documents that each run keeps spread over a column's values. `counts` (bins): by run; `outside`: values beyond the edges."""

    bins: Bins
    counts: dict[str, list[int]]
    outside: dict[str, int]


def _histograms(pair: Pair, stage: str, column: str, values: dict[str, Floats]) -> TwoHistograms:
    """Counts sorted values of both runs in the same bins."""
    finite = {side: some[np.isfinite(some)] for side, some in values.items()}
    both = np.concatenate([some[:: max(1, len(some) // SAMPLE_ROWS)] for some in finite.values()])
    marks = [rule.threshold for run in pair.runs.values() for rule in run.rules(stage) if rule.column == column]
    bins = plan(both, [float(mark) for mark in marks if isinstance(mark, int | float)])
    edges = np.asarray(bins.edges)
    ends = {side: np.append(np.searchsorted(some, edges[:-1]), np.searchsorted(some, edges[-1:], "right")) for side, some in finite.items()}
    counts = {side: np.diff(places).tolist() for side, places in ends.items()}
    return TwoHistograms(bins, counts, {side: len(values[side]) - sum(counts[side]) for side in values})


def _measured_by_both(pair: Pair, stage: str) -> tuple[list[str], list[str]]:
    """Returns the columns of numbers that both runs have measured in a stage, and those of one run alone."""
    schemas = [run.reader.schema(stage, "report") for run in pair.runs.values()]
    a, b = (measured_columns(schema, stage) if schema is not None else [] for schema in schemas)
    both = [name for name in a if name in b]
    return both, [name for name in dict.fromkeys([*a, *b]) if name not in both]


def _keep_values(pair: Pair, side: str, stage: str, columns: list[str]) -> None:
    pair.read(side, lambda: f"CREATE OR REPLACE TABLE values_{side} AS {_kept_values(pair, side, stage, columns)}")


def _kept_values(pair: Pair, side: str, stage: str, columns: list[str]) -> str:
    """SQL: the values (`v0`, `v1`, ...) that a stage measured, one row for each document that the last stage keeps."""
    scan = pair.scan(side, f"{stage}_report")
    values = ", ".join(f"CAST({identifier(name)} AS DOUBLE) AS v{place}" for place, name in enumerate(columns))
    if stage == pair.stages[-1]:
        return f"SELECT {values} FROM {scan} WHERE kept"
    several = f"SELECT id FROM {scan} WHERE kept GROUP BY id HAVING count(*) > 1"
    return (  # of several rows with one id, takes as many as the last stage keeps: their values are equal
        f"WITH several AS MATERIALIZED ({several}), final AS (SELECT id, count(*) AS copies FROM fate_{side} WHERE kept GROUP BY id) "
        f"SELECT {values} FROM {scan} WHERE kept AND id NOT IN (FROM several) AND id IN (SELECT id FROM final) UNION ALL "
        f"SELECT COLUMNS('^v[0-9]+$') FROM (SELECT id, {values}, row_number() OVER (PARTITION BY id) AS number FROM {scan} "
        f"WHERE kept AND id IN (FROM several)) JOIN final USING (id) WHERE number <= copies"
    )


def _change(pair: Pair, stage: str, place: int, column: str) -> tuple[ColumnChange, TwoHistograms]:
    values, runs = {}, {}
    for side in SIDES:
        every = _fetched(pair, side, place)
        values[side] = np.sort(every[~np.isnan(every)])
        runs[side] = describe(values[side], len(every))
    change = ColumnChange(stage, column, distance(values["a"], values["b"]), runs)
    return change, _histograms(pair, stage, column, values)


def _fetched(pair: Pair, side: str, place: int) -> Floats:
    """Returns the values (documents) of a column that `_keep_values` has read, NaN where missing."""
    found: Any = pair.connection.execute(f"SELECT v{place} FROM values_{side}").fetchnumpy()[f"v{place}"]
    values: Floats = np.ma.filled(np.ma.asarray(found, np.float64), np.nan)
    return values


def describe(values: Floats, rows: int) -> Distribution:
    """Describes the distribution of sorted `values` among `rows` documents."""
    if not len(values):
        return Distribution(0, rows, None)
    with np.errstate(invalid="ignore"):  # infinities
        places = np.asarray(QUANTILES) * (len(values) - 1)
        low = np.floor(places).astype(np.int64)
        high, part = np.minimum(low + 1, len(values) - 1), places - low
        between = np.where(values[low] == values[high], values[low], values[low] * (1 - part) + values[high] * part)
        return Distribution(len(values), rows - len(values), float(np.mean(values)), between.tolist())


def distance(a: Floats, b: Floats) -> float | None:
    """Returns the largest difference between the empirical distribution functions of two sorted samples; None if one is empty."""
    if not len(a) or not len(b):
        return None
    largest = 0.0
    for points in (a, b):
        shares = [np.searchsorted(sample, points, "right") / len(sample) for sample in (a, b)]
        largest = max(largest, float(np.max(np.abs(shares[0] - shares[1]))))
    return largest


def _changed_settings(pair: Pair) -> list[tuple[str, Any, Any]]:
    """Returns the settings that differ in `run.json`. Where one recipe leaves a threshold to its preset, shows the threshold that the stage
    applied."""
    rows = read_settings(pair.runs["a"].reader, pair.runs["b"].reader)
    presets = [{f"filter.thresholds.{rule.rule}": rule.threshold for rule in run.rules("filter")} for run in pair.runs.values()]
    return [
        (key, *(preset.get(key, value) if value == ABSENT else value for value, preset in zip(values, presets, strict=True)))
        for key, *values in rows
    ]


def read_settings(a: RunReader, b: RunReader) -> list[tuple[str, Any, Any]]:
    """Returns (key, value of the first run, value of the second) for each difference in `run.json`; a key is like `dedup.threshold`."""
    flat = [dict(_flat("", reader.description)) for reader in (a, b)]
    keys = list(dict.fromkeys([*flat[0], *flat[1]]))
    rows = [(key.removeprefix("recipe."), flat[0].get(key, ABSENT), flat[1].get(key, ABSENT)) for key in keys]
    return [row for row in rows if row[1] != row[2] or type(row[1]) is not type(row[2])]


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields each leaf with its key. The steps of a list are named by their kind; repeated steps get a number."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            if item == {} and "." in key:  # an option that sets nothing; a stage without options is a stage
                continue
            yield from _flat(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and len(item) == 1 for item in value):
        seen: dict[str, int] = {}
        for item in value:
            name, options = next(iter(item.items()))
            seen[name] = seen.get(name, 0) + 1
            number = "" if seen[name] == 1 else f"#{seen[name]}"
            yield from _flat(f"{key}.{name}{number}", options if options else {})
    else:
        yield key, value


def _samples(pair: Pair, side: str, wanted: DiffOptions) -> list[OneSided]:
    """Reads documents that `side` keeps and the other run drops, with the beginnings of their texts."""
    found, run = read_one_sided(pair, side, int(wanted.samples)), pair.runs[other_side(side)]
    for stage in dict.fromkeys(one.stage for one in found):
        add_texts(run.reader, stage, [one.row for one in found if one.stage == stage], wanted.chars)
    return found


def read_one_sided(pair: Pair, side: str, limit: int, offset: int = 0, rule: tuple[str, str] | None = None) -> list[OneSided]:
    """Reads documents that `side` keeps and the other run drops, as the other run saw them, without their texts. They come in the order of
    a hash of their ids, so that each part is a random sample. `rule`: only those that the other run drops by this rule (stage, rule)."""
    other = other_side(side)
    run = pair.runs[other]
    fails, values = "", []
    if rule is not None:
        fails = f"AND (id, copy) IN (SELECT (id, copy) FROM fate_{other} WHERE level = $1 AND list_contains(failed, $2))"
        values = [ORDER.index(rule[0]), rule[1]]
    sql = (
        f"SELECT id, level_{other} FROM matched WHERE kept_{side} AND NOT kept_{other} {fails} "
        f"ORDER BY md5(id || ':{SEED}'), copy LIMIT {int(limit)} OFFSET {int(offset)}"
    )
    chosen = [(str(id_), ORDER[level]) for id_, level in pair.connection.execute(sql, values).fetchall()]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in dict.fromkeys(stage for _, stage in chosen):
        table: TableRows = table_rows(run, f"{stage}_report", stage, REPORT.names)
        table.add("NOT kept AND list_contains(?, id)", [id_ for id_, where in chosen if where == stage])
        rows.update({(row["id"], stage): row for row in table.read(table.columns, "", 0)})
    return [OneSided(stage, rows[id_, stage], run.rules(stage)) for id_, stage in chosen if (id_, stage) in rows]


def read_notes(pair: Pair) -> list[str]:
    """Returns notes on stages that are stale, missing in one run or unfinished, and on damage."""
    notes = [f"{side.upper()}: {run.reader.stale.sentence}" for side, run in pair.runs.items() if run.reader.stale]
    for side, other in (("a", "b"), ("b", "a")):
        more = [name for name in pair.chains[side] if name not in pair.chains[other]]
        later = [name for name in ORDER if f"{name}_report" in pair.runs[side].tables and f"{name}_report" not in pair.runs[other].tables]
        if more:
            notes.append(f"{other.upper()} has no {', '.join(more)}.")
        if (later := [name for name in later if name not in more]) and len(pair.stages) > 1:
            notes.append(f"{other.upper()} has no {', '.join(later)}, so both are compared up to {pair.stages[-1]}.")
        run = pair.runs[side]
        unfinished = [name for name in pair.stages if run.reader.stages[name].status == "unfinished"]
        if unfinished:
            notes.append(f"{side.upper()}: {', '.join(unfinished)} not finished, so it has not decided about all documents yet.")
        notes += [f"{side.upper()}: {warning}" for warning in run.reader.warnings]
    return notes


def read_ablations(pair: Pair) -> list[dict[str, str]]:
    """Returns the verdicts on both runs, with the page of each, of the ablations in the folders in which the runs are."""
    folders = {run.reader.storage.absolute for run in pair.runs.values()}
    found = []
    for beside in sorted({folder.rpartition("/")[0] for folder in folders}):
        for name in Storage(beside).folders():
            ablation = Storage(f"{beside}/{name}/ablate")
            if ablation.exists("result.json") and Manifest(ablation, read_only=True).complete:
                first, *others = parse_json(ablation.read_bytes("result.json"))["variants"]
                found += [
                    {"sentence": other["sentence"], "page": ablation.path("page.html")}
                    for other in others
                    if {first["run"], other["run"]} == folders
                ]
    return found


# ---- on a terminal -------------------------------------------------------------------------------------


def show_difference(found: Difference, wanted: DiffOptions, console: Console) -> None:
    """Prints the verdict, then tables of documents, recipes, rules, values and origins, then samples of both sides."""
    for side, folder in found.folders.items():
        console.print(Text(f"{side.upper()}: {safe_line(folder, 300)}", style="bold"))
    show_notes(found.notes, console, limit=500)
    console.print(Text(verdict(found)))
    for ablation in found.ablations:
        console.print(Text(safe_line(f"{ablation['sentence']} {ablation['page']}", 600)))
    wide = console.width >= WIDE
    tables = [_outcomes(found), _settings(found), _rules(found, wide), _columns(found, wanted, wide)]
    tables += [_values(name, rows) for name, rows in found.properties.items()]
    for made, more in tables:
        if made.row_count:
            console.print()
            show(made, console, more)
    if found.columns_of_one:
        console.print(Text(f"Measured by one run alone: {safe_line(', '.join(found.columns_of_one), 600)}", style="dim"))
    for side in found.folders:
        _show_samples(found, side, wanted, console)


def verdict(found: Difference) -> str:
    """Returns in words how much the two runs differ."""
    a, b = found.kept("a"), found.kept("b")
    what = f"of the stage {found.stages[0]}" if len(found.stages) == 1 else f"from {found.stages[0]} to {found.stages[-1]}"
    seen = sum(found.of(name).documents for name in SEEN)
    moved = found.of("only_a").documents + found.of("only_b").documents
    unseen = [found.of(f"kept_unseen_{side}").documents for side in ("b", "a")]
    if not moved and not any(unseen):
        return f"Both keep the same {a:,} documents ({what})."
    if not seen:
        return f"A keeps {a:,} documents, B {b:,} ({what}), and no document is in both runs: there is nothing to compare."
    change = f" ({(b - a) / a:+.1%})" if a else ""
    line = f"A keeps {a:,} documents, B {b:,}{change} ({what}). Of {seen:,} that both have seen, they decide differently about {moved:,}."
    return line + (f" {unseen[0]:,} that A keeps B has never seen, and {unseen[1]:,} the other way." if any(unseen) else "")


def _outcomes(found: Difference) -> Shown:
    tokens = any(counts.tokens is not None for counts in found.counts.values())
    made = table("Documents", "", ">documents", ">share", ">characters", *([">tokens"] if tokens else []))
    total = sum(counts.documents for counts in found.counts.values())
    for title, counts in outcomes(found):
        shares = number(counts.documents), share(counts.documents, total), number(counts.characters)
        made.add_row(title, *shares, *([cell(counts.tokens)] if tokens else []))
    return made, ""


def outcomes(found: Difference) -> list[tuple[str, Counts]]:
    """Returns the outcomes in words with their counts; those that need both runs always, the others where there are any."""
    return [(title, found.of(name)) for name, title in OUTCOMES.items() if found.of(name).documents or name in SEEN]


def _settings(found: Difference) -> Shown:
    rows = [[cell(key, 120), Text(_value_text(a)), Text(_value_text(b))] for key, a, b in found.settings[:SETTINGS]]
    made = table("Differences of recipes, inputs and versions", "key", "A", "B", rows=rows)
    for column in made.columns:
        column.no_wrap = False
    return made, _left(len(found.settings) - SETTINGS, "--json has all")


def _value_text(value: Any) -> str:
    return safe_line(value if isinstance(value, str) else json.dumps(value, default=str), 200)


def _rules(found: Difference, wide: bool) -> Shown:
    """Returns the table of rules that failed a document kept by the other run; on wide terminals with the thresholds of both runs."""
    rules = [rule for rule in found.rules if rule.weight]
    names = _short([(rule.stage, rule.rule) for rule in rules])
    heads = (">A fails", ">B fails", ">A drops,\nB keeps", ">B drops,\nA keeps")
    title = "Rules: documents that fail a rule, and how many of them the other run keeps"
    made = table(title, "rule", *(["A", "B"] if wide else []), *heads)
    for rule, name in zip(rules[:RULES], names, strict=False):
        limits = [_limit(found, side, rule) for side in found.folders] if wide else []
        counts = [*rule.fired.values(), *rule.other_keeps.values()]
        made.add_row(Text(name), *map(Text, limits), *map(number, counts))
    return made, _left(len(rules) - RULES, "--json has all")


def _short(names: list[tuple[str, str]]) -> list[str]:
    """Returns the names of rules or values, with the stage where two stages use the same name."""
    several = Counter(name for _, name in names)
    return [safe_line(name if several[name] == 1 else f"{stage}: {name}", 60) for stage, name in names]


def _limit(found: Difference, side: str, rule: RulePair) -> str:
    known = found.thresholds[side].get((rule.stage, rule.rule))
    return limit(known) if known is not None else ""


def _columns(found: Difference, wanted: DiffOptions, wide: bool) -> Shown:
    """Returns the table of columns that changed beyond chance, the largest distance first; on wide terminals with more quantiles."""
    beyond = [change for change in found.columns if found.is_beyond_chance(change)]
    shown = found.columns if wanted.all_columns else beyond[:COLUMNS]
    heads = [">5% A", ">B", ">median A", ">B", ">95% A", ">B"] if wide else [">median A", ">B", ">mean A", ">B"]
    made = table("Values of the kept documents (K-S: how far their distributions are apart)", "value", ">K-S", *heads)
    for change, name in zip(shown, _short([(change.stage, change.column) for change in shown]), strict=True):
        distance = "" if change.distance is None else f"{change.distance:.4f}"
        made.add_row(Text(name), distance, *_quantiles(change, wide))
    within, left = len(found.columns) - len(beyond), len(found.columns) - len(shown)
    return made, _left(left, f"{within:,} of them no further apart than by chance; --columns shows all")


def _quantiles(change: ColumnChange, wide: bool) -> list[Text]:
    cells = []
    for place in (0, 2, 4) if wide else (2,):
        cells += [cell(run.quantiles[place] if run.quantiles else None, 16) for run in change.runs.values()]
    return cells if wide else [*cells, *(cell(run.mean, 16) for run in change.runs.values())]


def _values(name: str, rows: list[tuple[str, int, int]]) -> Shown:
    """Returns the table of languages (hosts, crawl files) whose number of kept documents differs."""
    titles = {"language": "Languages", "page_type": "Page types", "host": "Hosts", "source": "Crawl files"}
    changed = [row for row in rows if row[1] != row[2]]
    cells = [[cell(value, 60), a, b, f"{b - a:+,}"] for value, a, b in changed[:VALUES]]
    made = table(f"{titles[name]} of the kept documents: the largest changes", name, ">A", ">B", ">change", rows=cells)
    return made, _left(len(changed) - VALUES, "--json has all")


def _left(count: int, how: str) -> str:
    return f"{count:,} more ({how})" if count > 0 else ""


def _show_samples(found: Difference, side: str, wanted: DiffOptions, console: Console) -> None:
    """Prints documents that this run keeps, with the rules by which the other run drops them."""
    samples, other = found.samples[f"only_{side}"], "b" if side == "a" else "a"
    if not samples:
        return
    total = found.of(f"only_{side}").documents
    console.print()
    console.print(Text(f"Kept by {side.upper()}, dropped by {other.upper()}: {len(samples):,} of {total:,}, at random", style="bold"))
    for place, one in enumerate(samples, 1):
        show_document(place, one.row, one.rules, [], wanted.chars, console)
    root = shlex.quote(safe_line(found.folders[other], 300))
    console.print(Text(f"All about one: corpusmill why {root} {safe_line(samples[0].row['id'], 40)}", style="dim"), soft_wrap=True)
