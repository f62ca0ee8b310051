"""Fuzzes a fastText file: a model that scores texts within the bounds of its arrays, or half a sentence."""

import struct
from functools import cache

import numpy as np
import pyarrow as pa
from fuzzing import scratch
from tiny_classifiers import train

from corpusmill.filters.fasttext_model import FastTextModel, read_model
from corpusmill.filters.fasttext_scores import FastTextScorer, as_fasttext_reads
from corpusmill.text.buffers import text_buffers

TEXTS = ["the theorem and the proof", "", "buy cheap pills </s> now", "日本語 é x" * 9]
KINDS = {"__label__yes": ["good", "other"], "__label__no": ["bad"], "__label__c": ["rude"]}
SMALL = {"dim": 4, "epoch": 1, "minCount": 30}
LOSSES = ({"loss": "softmax", "bucket": 20}, {"loss": "hs", "wordNgrams": 1}, {"loss": "ova", "minn": 2, "maxn": 3, "bucket": 20})


@cache
def sound() -> list[bytes]:
    """Makes models of every loss, with n-grams and without, whole and quantised."""
    import fasttext

    found = []
    for number, options in enumerate(LOSSES):
        path = train(scratch() / f"model-{number}.bin", KINDS, **{**SMALL, **options})
        found.append(path.read_bytes())
    path = train(scratch() / "large.bin", KINDS, **SMALL, bucket=300)
    model = fasttext.load_model(str(path))
    model.quantize(input=str(path.with_suffix(".txt")), qnorm=True, cutoff=260, retrain=False)
    model.save_model(str(scratch() / "model.ftz"))
    return [*found, (scratch() / "model.ftz").read_bytes()]


def seeds() -> list[bytes]:
    return [*sound(), *(_with(sound()[0], at, value) for at, value in ((64, -1), (68, 1 << 40), (76, 0), (84, 10**15)))]


def _with(content: bytes, at: int, value: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into("<q", changed, at, value)
    return bytes(changed)


def fuzz(data: bytes) -> None:
    path = scratch() / "x.bin"
    path.write_bytes(data)
    try:
        model = read_model(str(path))
    except ValueError as error:
        assert str(error)
        return
    score(model)


def score(model: FastTextModel) -> None:
    content, offsets = text_buffers(pa.array(TEXTS, pa.large_string()))
    scorer = FastTextScorer([model], bare=True, table_bytes=1 << 16)
    (found,) = scorer.score(as_fasttext_reads(content, offsets), len(TEXTS), len(content)).scores
    assert found.shape == (len(TEXTS), len(model.labels))
    if (
        np.isfinite(model.output).all()
        and np.isfinite(model.rows).all()
        and max(np.abs(model.output).max(), np.abs(model.rows).max()) < 1e3
    ):
        assert (found[np.isfinite(found)] <= 1.001).all(), "a probability above 1"
