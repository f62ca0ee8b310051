"""Tiny fastText models and classifiers, trained in a moment on made-up sentences."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import fasttext

from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.filters.classifier.card import FILE, NO, YES, ClassifierDescription, ClassifierHead

#: Words by topic, so that a model can learn them.
WORDS = {
    "good": [
        "theorem",
        "proof",
        "science",
        "language",
        "history",
        "because",
        "therefore",
        "reason",
        "explain",
        "river",
        "mountain",
        "library",
    ],
    "bad": ["cheap", "buy", "click", "casino", "free", "winner", "bonus", "offer", "pills", "discount", "sale", "now"],
    "rude": ["fool", "idiot", "stupid", "hate", "dirty", "rotten", "scum", "liar", "trash"],
    "other": ["the", "a", "of", "to", "and", "in", "is", "it", "that", "was", "on", "with", "as", "for"],
}


def sentence(kinds: Sequence[str], length: int, seed: int) -> str:
    """Returns words of some topics, drawn by a fixed sequence."""
    words = [word for kind in kinds for word in WORDS[kind]]
    state, chosen = seed * 2654435761 % 2**32, []
    for _ in range(length):
        state = (state * 1664525 + 1013904223) % 2**32
        chosen.append(words[(state >> 8) % len(words)])
    return " ".join(chosen)


def train(path: Path, kinds: Mapping[str, Sequence[str]], **options: object) -> Path:
    """Trains a fastText model at `path` with these labels, each on sentences of its topics."""
    lines = [
        f"{label} {sentence(words, 12 + n % 9, 7 * n + place)}" for n in range(150) for place, (label, words) in enumerate(kinds.items())
    ]
    text = path.with_suffix(".txt")
    text.write_text("\n".join(lines) + "\n")
    settings = {"dim": 8, "epoch": 8, "lr": 0.5, "wordNgrams": 2, "bucket": 2000, "thread": 1, "verbose": 0, "minCount": 1, "seed": 1}
    fasttext.train_supervised(str(text), **{**settings, **options}).save_model(str(path))
    return path


def make_classifier(folder: Path, name: str, heads: Mapping[str, Sequence[str]], *, window: int | None = None, **head: object) -> Path:
    """Makes a classifier's folder: one model for each label, which is positive on words of the given topics."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for label, kinds in heads.items():
        others = [kind for kind in WORDS if kind not in kinds]
        path = train(folder / f"{label}.bin", {YES: [*kinds, "other"], NO: others})
        path.with_suffix(".txt").unlink()
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        settings = {"calibration": Calibration(method="platt", slope=0.9, intercept=-0.1), "threshold": 0.6, **head}
        described.append(ClassifierHead.model_validate({"label": label, "file": path.name, "sha256": sha256, **settings}))
    classifier = ClassifierDescription(name=name, form="words", window=window, heads=tuple(described), card={"trained_on": "words"})
    (folder / FILE).write_text(classifier.model_dump_json())
    return folder
