"""fastText, trained by one thread without a word on the terminal: equal lines and arguments give equal bytes.

fastText's file holds no path, no time and no version of the machine; what differs between runs of several threads is their order.
"""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.filters.classifier.card import NO, YES
from corpusmill.filters.classifier.spec import Arguments, Compression
from corpusmill.filters.fasttext_model import CENTROIDS
from corpusmill.pipeline.errors import InputError


def write_lines(path: Path, lines: pa.Array, answer: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> None:
    """fastText's training file: a line an example, in this order. `lines` (large_string) are as `write_form` writes them."""
    labels = pa.array([f"{NO} ", f"{YES} "], pa.large_string()).take(pa.array(answer.astype(np.int64)))
    written = pc.binary_join_element_wise(labels, lines, pa.scalar("\n", pa.large_string()), pa.scalar("", pa.large_string())).take(
        pa.array(order)
    )
    with open(path, "wb") as file:
        for line in written.to_pylist():
            file.write(line.encode())


def train_model(
    label: str,
    target: Path,
    lines: pa.Array,
    answer: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    arguments: Arguments,
    compression: Compression | None,
    seed: int,
) -> None:
    """Trains a model of one label and writes it to `target` (`.ftz` where it is compressed, else `.bin`).

    Raises InputError where fastText can't train with these arguments.
    """
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.txt"
        write_lines(path, lines, answer, order)
        try:
            model = fasttext.train_supervised(str(path), thread=1, verbose=0, seed=seed, **arguments.model_dump())
            if not set(model.words) - {"</s>"} and arguments.maxn == 0:
                raise ValueError("empty vocabulary")
            if compression:
                rows = len(np.asarray(model.f.getInputMatrix()))
                if rows < CENTROIDS:
                    raise ValueError(f"its {rows} rows are too few to be compressed; train with --no-compress")
                cutoff = compression.cutoff if compression.cutoff < rows else 0
                again = cutoff > 0 and compression.retrain
                model.quantize(str(path), cutoff=cutoff, retrain=again, thread=1, verbose=0, dsub=compression.dsub, qnorm=compression.qnorm)
            model.save_model(str(target))
        except (RuntimeError, ValueError) as error:
            raise InputError(_reason(label, str(error), arguments)) from error


def _reason(label: str, error: str, arguments: Arguments) -> str:
    if "NaN" in error:
        return (
            f"label {label}: the training gave numbers that are none (NaN) at a learning rate of {arguments.lr:g}; "
            f"lower fasttext.lr or fasttext.epoch."
        )
    if "vocabulary" in error.lower():
        return f"label {label}: no word comes {arguments.minCount} times; lower fasttext.minCount, or give more examples."
    return f"label {label}: fastText can't train ({error.strip().rstrip('.')})."
