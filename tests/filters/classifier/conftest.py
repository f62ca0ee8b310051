"""Trains tiny models with the labels of public ones, and makes a classifier's folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_classifiers import make_classifier, sentence, train


@pytest.fixture(scope="session")
def dclm_model(tmp_path_factory) -> Path:
    """Trains a model with the labels of DCLM's fasttext-oh-eli5."""
    return train(tmp_path_factory.mktemp("dclm") / "oh_eli5.bin", {"__label__hq": ["good"], "__label__cc": ["bad", "other"]})


@pytest.fixture(scope="session")
def jigsaw_model(tmp_path_factory) -> Path:
    """Trains a model with the labels of Dolma's Jigsaw model for hate speech."""
    return train(
        tmp_path_factory.mktemp("jigsaw") / "hatespeech.bin", {"__label__toxic": ["rude"], "__label__non_toxic": ["good", "other"]}
    )


@pytest.fixture(scope="session")
def scale_model(tmp_path_factory) -> Path:
    """Trains a model with six labels from 0 to 5, like fastText models of FineWeb-Edu's scores."""
    kinds = {0: ["bad"], 1: ["bad", "other"], 2: ["other"], 3: ["other", "good"], 4: ["good", "good", "other"], 5: ["good"]}
    return train(tmp_path_factory.mktemp("edu") / "edu.bin", {f"__label__{mark}": words for mark, words in kinds.items()})


@pytest.fixture(scope="session")
def toxicity(tmp_path_factory) -> Path:
    """Makes a classifier of two labels that scores windows of 10 words."""
    return make_classifier(
        tmp_path_factory.mktemp("toxicity") / "toxicity", "toxicity", {"toxicity": ["rude", "bad"], "hate": ["rude"]}, window=10
    )


@pytest.fixture(scope="session")
def mixed_texts() -> list[str]:
    """Makes texts of all kinds, mixtures and lengths, with line breaks; some have no word that a model knows."""
    kinds = [["good"], ["bad"], ["rude"], ["other"]]
    kinds += [["good"] * share + ["bad", "other", "rude"][: 1 + share % 3] * (7 - share) for share in range(1, 7)]
    texts = [sentence(kinds[n % len(kinds)], 3 + n * 7 % 90, n).replace(" a ", "\na\n") for n in range(400)]
    return [*texts, "", " \n", "\u4e00\u4e8c", texts[0].upper()]


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    return make_classifier
