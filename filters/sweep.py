"""What each threshold of a rule would keep, from the values that the report has: by this rule alone, and beside all others."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.config import FilterConfig, rule_table
from corpusmill.filters.rules import Rule, fails_others
from corpusmill.filters.share_phases import read_found
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import plan_of_existing
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage


@dataclass(frozen=True)
class Kept:
    """What one threshold keeps: documents, and characters of the text that came in."""

    threshold: float
    alone_documents: int
    alone_characters: int
    together_documents: int
    together_characters: int


@dataclass(frozen=True)
class Sweep:
    """A rule's thresholds and what they keep, of so many documents and characters."""

    rule: str
    column: str
    comparison: str
    now: float | None  # the threshold that decided; None where the rule is off
    documents: int
    characters: int
    missing: int  # documents without a value, which no threshold drops
    rows: tuple[Kept, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def sweep(folder: str, name: str, first: float, last: float, steps: int) -> Sweep:
    """Tries `steps` thresholds from `first` to `last` of the rule `name` on a finished filter stage.

    Raises InputError where there is no such rule, where it compares with a list, or where the stage is not finished.
    """
    plan = plan_of_existing(folder)
    config = plan.sections.get("filter")
    if not isinstance(config, FilterConfig):
        raise InputError(f"{folder}: the run's recipe has no stage filter.")
    rule, now = _rule(config, name)
    storage = Storage(folder).child("filter")
    manifest = Manifest(storage, read_only=True)
    if not manifest.complete:
        raise InputError(f"{storage.root}: the stage filter is not finished, so there is nothing to sweep over.")
    if rule.unknown and now is not None and now != now:
        now = read_found(storage)[name]
    thresholds = _thresholds(first, last, steps)
    sums = np.zeros((len(thresholds), 4), np.int64)
    documents = characters = missing = 0
    for path in [output.path for row in manifest.rows() for output in row.outputs if output.path.startswith("report/")]:
        report = read_table(storage, path, ["failed", "chars_in", rule.column])
        column, lengths = report[rule.column].combine_chunks(), report["chars_in"].to_numpy()
        documents, characters = documents + len(column), characters + int(lengths.sum())
        missing += column.null_count + (pc.sum(pc.is_nan(column)).as_py() or 0 if pa.types.is_floating(column.type) else 0)
        sums += _kept(rule, thresholds, column, lengths, ~fails_others(report["failed"].combine_chunks(), [name]))
    rows = tuple(Kept(threshold, *counts) for threshold, counts in zip(thresholds, sums.tolist()))
    return Sweep(name, rule.column, rule.comparison, now, documents, characters, missing, rows)


def _rule(config: FilterConfig, name: str) -> tuple[Rule, float | None]:
    """The rule of that name, also where it is switched off, and its threshold now; NaN where it keeps a share of the corpus."""
    own = {rule.rule.name: rule.rule for rule in rule_table(config.model_copy(update={"thresholds": {}}))}
    now = {rule.rule.name: rule.rule.threshold for rule in rule_table(config)}
    if name not in own:
        raise InputError(f"--rule {name}: no such rule (expected one of {', '.join(own) or 'none, as no step has rules'}).")
    threshold = now.get(name)
    if isinstance(own[name].threshold, tuple) or isinstance(threshold, tuple):
        raise InputError(f"--rule {name}: compares with a list, so it has no threshold to sweep over.")
    return own[name], threshold


def _thresholds(first: float, last: float, steps: int) -> list[float]:
    """Evenly spaced thresholds, both ends included; without the noise of the last binary digits."""
    return list(dict.fromkeys(float(f"{value:.12g}") for value in np.linspace(first, last, steps).tolist()))


def _kept(
    rule: Rule, thresholds: list[float], column: pa.Array, lengths: npt.NDArray[np.int64], others: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """(thresholds, 4): documents and characters kept alone, and those kept where `others` says that no other rule drops them."""
    counts = np.zeros((len(thresholds), 4), np.int64)
    for place, threshold in enumerate(thresholds):
        kept = ~Rule(rule.name, rule.column, rule.comparison, threshold).failing(column)
        both = kept & others
        counts[place] = kept.sum(), lengths[kept].sum(), both.sum(), lengths[both].sum()
    return counts
