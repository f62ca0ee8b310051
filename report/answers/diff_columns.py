"""How the distribution of each measured value differs between what two runs keep.

In memory are the values of one column of both runs at a time; DuckDB keeps the others, on disk where memory is short.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.report.answers.diff_documents import SIDES, Pair
from corpusmill.report.queries.values import measured_columns
from corpusmill.report.query.run import identifier

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Floats = npt.NDArray[np.float64]


@dataclass
class Distribution:
    """Of the documents that a run keeps: how many have a value and how many none, the values' mean, and QUANTILES (linear)."""

    values: int
    missing: int
    mean: float | None
    quantiles: list[float] = field(default_factory=list)


@dataclass
class ColumnChange:
    """`distance` is that of Kolmogorov and Smirnov: how far the shares of documents below a value differ, at most (None: no values)."""

    stage: str
    column: str
    distance: float | None
    runs: dict[str, Distribution]


def read_columns(pair: Pair) -> tuple[list[ColumnChange], list[str]]:
    """Every value that both runs measured, the largest distance first; and the columns that one run alone has, as `STAGE.COLUMN`."""
    changes, alone = [], []
    for stage in pair.stages:
        schemas = {side: run.reader.schema(stage, "report") for side, run in pair.runs.items()}
        names = {side: measured_columns(schema, stage) if schema is not None else [] for side, schema in schemas.items()}
        both = [name for name in names["a"] if name in names["b"]]
        alone += [f"{stage}.{name}" for name in {**dict.fromkeys(names["a"]), **dict.fromkeys(names["b"])} if name not in both]
        if both:
            for side in SIDES:
                _keep_values(pair, side, stage, both)
            changes += [_change(pair, stage, place, name) for place, name in enumerate(both)]
            for side in SIDES:
                pair.query(f"DROP TABLE values_{side}")
    return sorted(changes, key=lambda change: -1 if change.distance is None else change.distance, reverse=True), alone


def _keep_values(pair: Pair, side: str, stage: str, columns: list[str]) -> None:
    pair.read(side, lambda: f"CREATE OR REPLACE TABLE values_{side} AS {_kept_values(pair, side, stage, columns)}")


def _kept_values(pair: Pair, side: str, stage: str, columns: list[str]) -> str:
    """SQL: the values (`v0`, `v1`, ...) that a stage measured of the documents which the last stage keeps, a row a document."""
    scan = pair.scan(side, f"{stage}_report")
    values = ", ".join(f"CAST({identifier(name)} AS DOUBLE) AS v{place}" for place, name in enumerate(columns))
    if stage == pair.stages[-1]:
        return f"SELECT {values} FROM {scan} WHERE kept"
    several = f"SELECT id FROM {scan} WHERE kept GROUP BY id HAVING count(*) > 1"
    return (  # of several rows with one id as many as are kept in the end: they have the same values
        f"WITH several AS MATERIALIZED ({several}), final AS (SELECT id, count(*) AS copies FROM fate_{side} WHERE kept GROUP BY id) "
        f"SELECT {values} FROM {scan} WHERE kept AND id NOT IN (FROM several) AND id IN (SELECT id FROM final) UNION ALL "
        f"SELECT COLUMNS('^v[0-9]+$') FROM (SELECT id, {values}, row_number() OVER (PARTITION BY id) AS number FROM {scan} "
        f"WHERE kept AND id IN (FROM several)) JOIN final USING (id) WHERE number <= copies"
    )


def _change(pair: Pair, stage: str, place: int, column: str) -> ColumnChange:
    values, runs = {}, {}
    for side in SIDES:
        found: Any = pair.connection.execute(f"SELECT v{place} FROM values_{side}").fetchnumpy()[f"v{place}"]
        every = np.ma.filled(np.ma.asarray(found, np.float64), np.nan)
        values[side] = np.sort(every[~np.isnan(every)])
        runs[side] = describe(values[side], len(every))
    return ColumnChange(stage, column, distance(values["a"], values["b"]), runs)


def describe(values: Floats, rows: int) -> Distribution:
    """The distribution of sorted `values`, which `rows` documents have or lack."""
    if not len(values):
        return Distribution(0, rows, None)
    with np.errstate(invalid="ignore"):  # infinities
        places = np.asarray(QUANTILES) * (len(values) - 1)
        low = np.floor(places).astype(np.int64)
        high, part = np.minimum(low + 1, len(values) - 1), places - low
        between = np.where(values[low] == values[high], values[low], values[low] * (1 - part) + values[high] * part)
        return Distribution(len(values), rows - len(values), float(np.mean(values)), between.tolist())


def distance(a: Floats, b: Floats) -> float | None:
    """The largest difference of the empirical distribution functions of two sorted samples; None where one has no values."""
    if not len(a) or not len(b):
        return None
    largest = 0.0
    for points in (a, b):
        shares = [np.searchsorted(sample, points, "right") / len(sample) for sample in (a, b)]
        largest = max(largest, float(np.max(np.abs(shares[0] - shares[1]))))
    return largest
