"""Fuzzes a classifier's folder: a description whose files lie in the folder, or one sentence; the same for hashes of its texts."""

import contextlib
import json
import math

import pyarrow as pa
from fuzzing import choose, choosing, json_mutants, scratch

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.score import in_training
from corpusmill.pipeline.errors import InputError

FILES = ["classifier.json", "training.hashes"]
CARD = {
    "format": 1, "name": "quality", "form": "words", "window": 100,
    "heads": [{"label": "good", "file": "good.ftz", "sha256": "0" * 64, "positive": "__label__yes", "complement": False, "threshold": 0.5,
               "calibration": {"method": "platt", "slope": 0.9, "intercept": -0.1}}],
    "card": {"labels": {"good": {"test": {"auc": 0.9}}}},
}  # fmt: skip


def seeds() -> list[bytes]:
    cards = [choosing(0, content) for content in (json.dumps(CARD).encode(), *json_mutants("card", CARD, 16))]
    return [*cards, choosing(1, bytes(range(64))), choosing(1, b"\0" * 7)]


def fuzz(data: bytes) -> None:
    name, content = choose(data, FILES)
    folder = scratch() / "classifier"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / name).write_bytes(content)
    with contextlib.suppress(InputError):
        in_training(folder, "words", pa.array(["A text", ""], pa.large_string()))
    with contextlib.suppress(InputError):
        found = read_classifier(folder)
        for head in found.heads:
            assert (folder / head.file).parent == folder and head.file not in (".", ".."), "a model lies outside its classifier's folder"
            assert len(head.sha256) == 64 and int(head.sha256, 16) >= 0
            assert 0 <= head.threshold <= 1 and not math.isnan(head.threshold)
        assert len(found.digest()) == 64
