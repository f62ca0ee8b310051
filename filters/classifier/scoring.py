"""Raw scores of a model that is being made, as the classifier will give them: windows and all."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.filters.classifier.calibration import Calibration
from corpusmill.filters.classifier.card import YES, Form
from corpusmill.filters.classifier.scorer import LoadedHead, Scorer, label_column, load_model

#: Texts that are scored at once.
BATCH = 10_000


def score_raw(path: Path, form: Form, window: int | None, text: pa.Array) -> npt.NDArray[np.float64]:
    """The raw score of each text's greatest window (n,), NaN where the model knows nothing of a text."""
    model = load_model(path)
    head = LoadedHead(path.stem, model, label_column(model, YES, path), False, form, window, Calibration(), 0.5)
    scorer = Scorer([head])
    parts = [scorer.score(text[start : start + BATCH])[0].raw for start in range(0, len(text), BATCH)]
    return np.concatenate([np.zeros(0), *parts])
