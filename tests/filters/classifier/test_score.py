"""Compares scores of texts with fastText."""

import hashlib
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from fasttext import load_model, train_supervised
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters import fasttext_scores
from corpusmill.filters.classifier.calibrate import Calibration
from corpusmill.filters.classifier.card import NO, YES, ClassifierDescription, ClassifierHead
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import Scorer
from corpusmill.filters.stop_words import stop_words

# ---- Against fastText's own predict, whole and quantised (all losses: test_fasttext_kernel.py).

ROUNDING = 1e-5  # fastText adds in single precision
WORDS = [
    "the", "of", "a", "in", "is", "was", "good", "bad", "House", "house", "maison", "Straße", "ΟΔΟΣ", "река", "ДОМ", "漢字", "日本語",
    "हिन्दी", "don't", "3.14", "it's", "@user", "http://x.org/y?", "!", ",", ".", "(", ")", "spam", "viagra", "naïve", "co-operate",
    "supercalifragilistic", "é", "e\u0301", "😀", "</s>", "__label__yes", "__label__x", "<nl>", "<url>",
]  # fmt: skip
SPACES = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u2028", "\0", "\xa0"]
#: Options of each model.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"form": "plain", "dim": 5},
    "pairs": {"form": "lower", "dim": 16, "wordNgrams": 2, "bucket": 1000},
    "triples": {"form": "words", "dim": 7, "wordNgrams": 3, "minn": 1, "maxn": 3, "bucket": 2003, "minCount": 20},
    "hs": {"form": "words", "dim": 8, "loss": "hs", "wordNgrams": 2, "bucket": 1000, "labels": 5},
    "pruned": {"form": "words", "dim": 16, "wordNgrams": 2, "minn": 2, "maxn": 4, "bucket": 3000, "quantise": {"cutoff": 600}},
}  # fmt: skip


def make_texts(seed: int, count: int, longest: int = 60) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choice(WORDS) + chance.choice(SPACES) for _ in range(chance.randrange(longest))) for _ in range(count)]


TEXTS = [*make_texts(1, 50), *make_texts(2, 2, 1000), *WORDS, "", " ", "\n", "</s>", "\0", "unheard-of", "🦄"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    texts = make_texts(0, 400)
    found = {}
    for name, kind in KINDS.items():
        options = dict(kind)
        form, labels, quantise = options.pop("form"), options.pop("labels", 2), options.pop("quantise", None)
        names = [YES, NO] if labels == 2 else [f"__label__{number}" for number in range(labels)]
        answers = [names[(len(text) // 7 + text.count("good")) % labels] for text in texts]
        lines = write_form(form, pa.array(texts)).to_pylist()
        (folder / "train.txt").write_text("".join(f"{answer} {line}\n" for answer, line in zip(answers, lines)), newline="\n")
        model = train_supervised(
            str(folder / "train.txt"), epoch=3, lr=0.5, thread=1, verbose=0, **{"minCount": 1, "bucket": 100, **options}
        )
        if quantise is not None:
            model.quantize(**quantise)
        found[name] = folder / f"{name}.bin"
        model.save_model(str(found[name]))
    return found


def make_classifier(models: dict[str, Path], name: str, **options: Any) -> tuple[Path, ClassifierDescription]:
    path = models[name]
    labels = load_model(str(path)).get_labels()
    head = ClassifierHead(
        label=name, file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), positive=labels[-1],
        **{key: options.pop(key) for key in ("calibration",) if key in options},
    )  # fmt: skip
    return path.parent, ClassifierDescription(name=name, form=KINDS[name]["form"], heads=(head,), **options)


def expected_raw(path: Path, texts: list[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Returns fastText's probability of the positive label of `make_classifier` (0 where it is not listed), and whether the text has a
    word of the dictionary, or, with character n-grams, any character.
    """
    model = load_model(str(path))
    positive, known = model.get_labels()[-1], set(model.get_words())
    found = [dict(zip(labels, scores)).get(positive, 0.0) for labels, scores in zip(*model.predict(texts, k=-1))]
    tokens = [[token for token in re.split("[ \t\r\v\f\0]+", text) if token] for text in texts]
    pruned = path.stem == "pruned"
    knows = [not known.isdisjoint(words) or bool(words and model.f.getArgs().maxn and not pruned) for words in tokens]
    return np.minimum(np.array(found, np.float64), 1), np.array(knows)


def close(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], knows: npt.NDArray[np.bool_], kind: dict[str, Any]) -> None:
    unknown = np.isnan(found)
    assert not unknown[knows].any()
    assert "wordNgrams" in kind or unknown[~knows].all()  # two unknown words have the row of a pair
    assert np.abs(found - expected)[~unknown].max(initial=0) <= ROUNDING


def windows_of(line: str, words: int, mark_lines: bool) -> list[str]:
    """Splits a written text into windows, slowly."""
    tokens = re.findall(r"[^ \t\n\r\f\v\0]+", line)
    counted = [place for place, token in enumerate(tokens) if not (mark_lines and token == "<nl>")]
    starts = [0, *counted[words::words]]
    if len(starts) > 1 and len(counted) % words and 2 * (len(counted) % words) < words:
        starts.pop()
    return [" ".join(tokens[start:end]) for start, end in zip(starts, [*starts[1:], len(tokens)])]


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_fasttext(models: dict[str, Path], name: str) -> None:
    (score,) = Scorer(*make_classifier(models, name)).score(pa.array(TEXTS))
    lines = write_form(KINDS[name]["form"], pa.array(TEXTS)).to_pylist()
    close(score, *expected_raw(models[name], lines), KINDS[name])
    assert np.isnan(score[lines.index("")])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("window", [7, 1])
def test_the_greatest_score_of_windows(models: dict[str, Path], name: str, window: int) -> None:
    calibration = Calibration(method="platt", slope=1.7, intercept=-0.4)
    folder, classifier = make_classifier(models, name, window=window, calibration=calibration)
    (score,) = Scorer(folder, classifier).score(pa.array(TEXTS))
    lines = write_form(classifier.form, pa.array(TEXTS)).to_pylist()
    windows = [windows_of(line, window, classifier.form == "words") for line in lines]
    alone = Scorer(folder, classifier.model_copy(update={"window": None, "form": "plain"}))  # judged above; here each window by itself
    apart = alone.score(pa.array([each for part in windows for each in part]))[0]
    ends = np.cumsum([len(part) for part in windows])
    for found, part, end in zip(score, windows, ends):
        piece = apart[end - len(part) : end]
        assert np.isnan(found) if np.isnan(piece).all() else found == np.nanmax(piece)


def test_what_length_and_stop_words_add(models: dict[str, Path]) -> None:
    """Tests the log-odds that a text gets, whole or in windows, beside the same calculation word by word."""
    texts = [*make_texts(3, 20), *(" ".join(make_texts(number, 1, 9000)) for number in (4, 5)), "The cat\u2003IS on the mat\n", ""]
    shares = [sum(word in stop_words("en") for word in text.lower().split()) / max(1, len(text.split())) for text in texts]
    lengths = [min(max(len(text), 1), 10_000) for text in texts]
    assert sorted(lengths)[-2:] == [10_000, 10_000] and shares[-2] == 4 / 6
    calibration = Calibration(method="platt", slope=0.2, intercept=-0.4)
    weighted = calibration.model_copy(update={"length": 0.5, "stop_words": 3.0})
    for window in (None, 7):
        without, found = (
            Scorer(*make_classifier(models, "pairs", window=window, calibration=each)).score(pa.array(texts))[0]
            for each in (calibration, weighted)
        )
        added = np.log(found / (1 - found)) - np.log(without / (1 - without))
        expected = 0.5 * np.log(np.array(lengths) / 1000) + 3 * (np.array(shares) - 0.4)
        np.testing.assert_allclose(added[:-1], expected[:-1], atol=1e-6)
        assert np.isnan(found[-1])


tokens = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.sampled_from(["x" * 47, "x" * 48, "x" * 49, "é" * 600])), max_size=20
)
spaced = tokens.flatmap(lambda words: st.sampled_from(SPACES).map(lambda space: space.join(words)))


@pytest.fixture(scope="module")
def loaded(models: dict[str, Path]) -> dict[str, tuple[Any, Scorer, Scorer]]:
    """Returns by name fastText's model, its scorer, and one with a tiny cache of sums, in which tokens evict each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasttext_scores, "TABLE_BYTES", 2000)
        small = {name: Scorer(*make_classifier(models, name)) for name in models}
    return {name: (load_model(str(path)), Scorer(*make_classifier(models, name)), small[name]) for name, path in models.items()}


@given(st.lists(spaced, min_size=1, max_size=4))
def test_random_texts(loaded: dict[str, tuple[Any, Scorer, Scorer]], texts: list[str]) -> None:
    column = pa.array(texts, pa.large_string())
    for name, (reference, scorer, small) in loaded.items():
        (one,), (other,) = scorer.score(column), small.score(column)
        assert np.array_equal(one, other, equal_nan=True)
        listed = reference.predict(write_form(KINDS[name]["form"], column).to_pylist(), k=-1)
        positive = reference.get_labels()[-1]
        expected = np.minimum([dict(zip(labels, scores)).get(positive, 0.0) for labels, scores in zip(*listed)], 1)
        assert (np.nan_to_num(np.abs(one - expected)) <= ROUNDING).all()
