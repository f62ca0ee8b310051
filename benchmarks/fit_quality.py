"""Fits the quality score's logistic model to texts with human labels and writes its coefficients.

    python benchmarks/fit_quality.py --data LABELLED.jsonl [--output filters/quality_model.json]

Each line of LABELLED.jsonl has `text` and `label` (1 good, 0 not), for example DCLM's human judgements of Common Crawl
pages. Prints the area under the ROC curve in repeated stratified cross-validation, for the choices of the L2 penalty;
the penalty is chosen by it, so the figure printed for the choice is a little optimistic, and the spread is printed too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.quality import NEEDS, features, score
from corpusmill.filters.statistics import measure

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS, REPEATS = 5, 20
NEWTON_STEPS = 50

Floats = npt.NDArray[np.float64]


def auc(scores: Floats, labels: Floats) -> float:
    """The chance that a good text scores above a bad one; ties count half."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def fit(inputs: dict[str, Floats], labels: Floats, penalty: float) -> dict[str, Any]:
    """L2-penalised logistic regression on standardised features by Newton's method; the intercept is free."""
    names = list(inputs)
    raw = np.stack([inputs[name] for name in names], 1)
    mean, scale = raw.mean(0), raw.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.concatenate([np.ones((len(raw), 1)), (raw - mean) / scale], 1)
    ridge = np.diag([0.0, *[penalty] * len(names)])
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (chance - labels) + ridge @ weights
        weights -= np.linalg.solve(design.T @ (design * (chance * (1 - chance))[:, None]) + ridge, gradient)
    rounded = [[round(float(v), 6) for v in values] for values in (mean, scale, weights[1:])]
    return {
        "intercept": round(float(weights[0]), 6),
        "features": {n: {"mean": m, "scale": s, "coefficient": w} for n, m, s, w in zip(names, *rounded)},
    }


def cross_validated(inputs: dict[str, Floats], labels: Floats, penalty: float) -> tuple[float, float]:
    """`(mean, standard deviation over repeats)` of the AUC of held-out scores."""
    results = []
    for repeat in range(REPEATS):
        random = np.random.default_rng(repeat)
        fold = np.empty(len(labels), int)
        for label in (0, 1):
            places = random.permutation(np.nonzero(labels == label)[0])
            fold[places] = np.arange(len(places)) % FOLDS
        held_out = np.empty(len(labels))
        for number in range(FOLDS):
            inside, outside = fold != number, fold == number
            fitted = fit({n: v[inside] for n, v in inputs.items()}, labels[inside], penalty)
            held_out[outside] = score({n: v[outside] for n, v in inputs.items()}, fitted)
        results.append(auc(held_out, labels))
    return float(np.mean(results)), float(np.std(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and label")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "filters" / "quality_model.json")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.data.read_text().splitlines()]
    labels = np.array([row["label"] for row in rows], np.float64)
    inputs = features(measure(pa.array([row["text"] for row in rows], pa.large_string()), "words", NEEDS))
    print(f"{len(rows)} texts, {int(labels.sum())} good")
    for name, values in inputs.items():
        alone = auc(values, labels)
        print(f"  {name:26s} alone: AUC {max(alone, 1 - alone):.3f}")
    results = {}
    for penalty in PENALTIES:
        results[penalty] = cross_validated(inputs, labels, penalty)
        print(f"penalty {penalty:5}: cross-validated AUC {results[penalty][0]:.3f} +- {results[penalty][1]:.3f}")
    penalty = max(results, key=lambda p: results[p][0])
    fitted = fit(inputs, labels, penalty)
    print(f"chosen: penalty {penalty}; on its own training data AUC {auc(score(inputs, fitted), labels):.3f}")
    about = {
        "fitted_to": f"{arguments.data.name}, {len(rows)} texts",
        "penalty": penalty,
        "cross_validated_auc": round(results[penalty][0], 3),
    }
    arguments.output.write_text(json.dumps({**about, **fitted}, indent=1) + "\n")


if __name__ == "__main__":
    main()
