"""Searches for a mixture: proxies on random weights of a corpus's components, a regression, a proposal (RegMix, arXiv 2407.01492).

The components are the documents' hosts, or the values of a column; a column of numbers has four components, its quartiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import hosts
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards

Floats = npt.NDArray[np.float64]
#: Components with a weight of their own, at most; the others together are one more.
MOST, OTHERS = 12, "(others)"
COMPONENTS = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("component", pa.string(), nullable=False)])
#: Mixtures that a proposal is chosen from; it is the mean of the best of them, as a single best one has luck in it.
CANDIDATES, BEST = 100_000, 100
#: Folds by which the regressions are compared.
FOLDS = 8


def components(run: Storage, files: Sequence[str], by: str) -> pa.Table:
    """Returns the component of each document (COMPONENTS) in the given files of a run, by host or by a column that the variant had.

    Raises InputError if no document has a value, or there is one component alone.
    """
    parts = [read_table(run, path, ["id", "url", "metadata"]) for path in files]
    table = pa.concat_tables(parts)
    if by == "host":
        values: list[Any] = hosts(table["url"]).to_pylist()
    else:
        values = [_value(row, by) for row in table["metadata"].to_pylist()]
    known = [value for value in values if value is not None]
    if not known:
        raise InputError(f"ablate.mixtures.by: no document of the first variant has {by}; give host or a column of its documents.")
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        ends = np.quantile(known, [0.25, 0.5, 0.75])
        values = [None if value is None else f"{by} quarter {int(np.searchsorted(ends, value, 'left')) + 1}" for value in values]
    named = pa.chunked_array([pa.array([OTHERS if value is None else str(value) for value in values], pa.string())])
    counts = sorted(((entry["counts"].as_py(), entry["values"].as_py()) for entry in pc.value_counts(named)), key=lambda c: (-c[0], c[1]))
    large = [name for _, name in counts[:MOST]]
    named = pc.if_else(pc.is_in(named, pa.array(large)), named, OTHERS)
    if len(pc.unique(named)) < 2:
        raise InputError(f"ablate.mixtures.by: all documents have one {by}, so there is nothing to mix.")
    return pa.table([table["id"], named], schema=COMPONENTS)


def _value(metadata: str | None, by: str) -> Any:
    """Returns a document's value of a column of the variant, whose own further columns (`metadata`) are one column of these."""
    columns = parse_json(metadata) if metadata else {}
    return columns[by] if by in columns else parse_json(columns.get("metadata") or "{}").get(by)


def natural_shares(table: pa.Table, shards: TokenShards) -> tuple[list[str], Floats]:
    """Returns the names of the components, sorted, and their shares of the tokens, float64 [components]."""
    names = sorted(pc.unique(table["component"]).to_pylist())
    tokens = np.zeros(len(names))
    for number in range(len(shards.shards)):
        index = shards.index(number)
        of_row = pc.take(table["component"], pc.index_in(index["id"], table["id"]))
        np.add.at(tokens, pc.index_in(of_row, pa.array(names)).to_numpy(), index["tokens"].to_numpy())
    return names, tokens / tokens.sum()


def drawn_weights(natural: Floats, count: int, seed: int = 0) -> Floats:
    """Returns float64 [count, components]: the natural shares first; then half of the mixtures around them, half from anywhere."""
    generator = np.random.Generator(np.random.Philox(seed))
    near = generator.dirichlet(np.maximum(natural * len(natural), 0.1), (count - 1) // 2)
    anywhere = generator.dirichlet(np.ones(len(natural)), count - 1 - len(near))
    return np.concatenate([natural[None], near, anywhere])


@dataclass(frozen=True)
class Fit:
    """A regression of bits per byte on weights: its name, its error on held-out mixtures (root mean square), and its predictions."""

    name: str
    error: float
    spread: float  # the standard deviation of what it predicts, which the error has to beat
    model: Any

    def predict(self, weights: Floats) -> Floats:
        found: Floats = self.model.predict(weights)
        return found


def fitted(weights: Floats, bits: Floats) -> Fit:
    """Fits a ridge regression on weights, their squares and their logarithms, and gradient-boosted trees (LightGBM's algorithm in
    scikit-learn); returns the one that predicts held-out mixtures better."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    ridge = make_pipeline(FunctionTransformer(_features), StandardScaler(), RidgeCV(np.logspace(-4, 4, 33)))
    trees = HistGradientBoostingRegressor(max_leaf_nodes=8, min_samples_leaf=4, learning_rate=0.05, max_iter=200, random_state=0)
    folds = KFold(min(FOLDS, len(bits)), shuffle=True, random_state=0)
    found = []
    for name, model in (("ridge regression", ridge), ("gradient-boosted trees", trees)):
        held_out = cross_val_predict(model, weights, bits, cv=folds)
        found.append(Fit(name, float(np.sqrt(np.mean((held_out - bits) ** 2))), float(bits.std()), model.fit(weights, bits)))
    return min(found, key=lambda fit: fit.error)


def _features(weights: Floats) -> Floats:
    return np.concatenate([weights, weights**2, np.log(weights + 0.01)], axis=1)


def proposed(fit: Fit, natural: Floats) -> Floats:
    """Returns float64 [components]: the mean of the BEST mixtures among CANDIDATES, as the regression predicts them."""
    candidates = drawn_weights(natural, CANDIDATES, seed=1)
    best = np.argsort(fit.predict(candidates), kind="stable")[:BEST]
    mean: Floats = candidates[best].mean(axis=0)
    return mean
