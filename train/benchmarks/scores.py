"""What a table of scored items comes to: means, their standard errors, and what guessing would give."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MetricScore = dict[str, float | None]


def mean_score(values: npt.NDArray[np.float64]) -> MetricScore:
    """The mean, and its standard error: sample deviation / sqrt(items), as `mean_stderr` of lm-evaluation-harness. None for one item."""
    return {"value": float(values.mean()), "stderr": float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None}


def perplexity_score(log_likelihoods: npt.NDArray[np.float64]) -> MetricScore:
    """exp(-mean) of the log-likelihoods of whole continuations. Its error by the delta method: that of the mean, times the perplexity."""
    mean = mean_score(-log_likelihoods)
    value = math.exp(min(mean["value"] or 0.0, 700.0))
    return {"value": value, "stderr": None if mean["stderr"] is None else value * mean["stderr"]}


def mean_of_parts(parts: Sequence[MetricScore]) -> MetricScore:
    """The mean of the parts' means, each with the same weight, and sqrt(sum of squared errors) / parts: as BLiMP is summed up."""
    errors = [part["stderr"] for part in parts]
    known = [error for error in errors if error is not None]
    error = math.sqrt(sum(error * error for error in known)) / len(parts) if len(known) == len(parts) else None
    return {"value": sum(part["value"] or 0.0 for part in parts) / len(parts), "stderr": error}


def metric_score(table: pa.Table, metric: str) -> MetricScore:
    if metric == "perplexity":
        return perplexity_score(pc.list_flatten(table["log_likelihoods"]).to_numpy())
    return mean_score(table[metric].to_numpy().astype(np.float64))


def scores(table: pa.Table, metrics: Sequence[str]) -> tuple[dict[str, MetricScore], dict[str, Any]]:
    """The metrics of all items, and by group: where items have groups, those of all are the mean over groups."""
    names = [name for name in pc.unique(table["group"]).to_pylist() if name]
    if not names:
        return {metric: metric_score(table, metric) for metric in metrics}, {}
    parts = {name: table.filter(pc.equal(table["group"], name)) for name in sorted(names)}
    groups = {name: {"items": part.num_rows, "metrics": {m: metric_score(part, m) for m in metrics}} for name, part in parts.items()}
    return {metric: mean_of_parts([group["metrics"][metric] for group in groups.values()]) for metric in metrics}, groups


def score_text(metric: str, score: Mapping[str, float | None]) -> str:
    """`50.2% ± 0.4`, or a perplexity."""
    value, error = score["value"] or 0.0, score["stderr"]
    shown = (f"{value:.3g}", f"{error or 0.0:.2g}") if metric == "perplexity" else (f"{value:.1%}", f"{100 * (error or 0.0):.1f}")
    return shown[0] if error is None else " ± ".join(shown)


def chance(table: pa.Table) -> float | None:
    """The accuracy of guessing among the choices; None where there are none."""
    if "continuations" not in table.column_names:
        return None
    choices = pc.list_value_length(table["log_likelihoods"]).to_numpy()
    return float((1 / choices).mean()) if choices.max() > 1 else None
