"""Several heads at once against fastText's own predict for each: all losses, whole and quantised, with and without n-grams."""

import hashlib
import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from fasttext import load_model, train_supervised
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.filters.classifier.calibration import Calibration
from corpusmill.filters.classifier.card import NO, YES, Classifier, Head
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.scorer import LoadedHead, Scorer, load_heads
from corpusmill.filters.fasttext_kernel import NEVER, cut_windows
from corpusmill.pipeline.errors import InputError

#: fastText adds in single precision, and reads the sigmoid of ova and ns from a table whose entries are so far apart.
ROUNDING, TABLE_STEP = 1e-5, 1 / (1 + math.exp(-1 / 32)) - 0.5
WORDS = """the of a in is was good bad House house maison Straße ΟΔΟΣ река ДОМ 漢字 日本語 हिन्दी don't 3.14 it's @user http://x.org/y? ! , . ( )
spam viagra naïve co-operate supercalifragilistic é e\u0301 😀 </s> __label__yes __label__x <nl> <url>""".split()
SPACES = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u2028", "\0", "\xa0"]
#: Options of a model each; the files are all in use at once.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"form": "plain", "dim": 5},
    "pairs": {"form": "lower", "dim": 16, "wordNgrams": 2, "bucket": 1000},
    "all": {"form": "words", "dim": 16, "wordNgrams": 2, "minn": 3, "maxn": 6, "bucket": 3000},
    "triples": {"form": "words", "dim": 7, "wordNgrams": 3, "minn": 1, "maxn": 3, "bucket": 2003, "minCount": 20},
    "hs": {"form": "words", "dim": 8, "loss": "hs", "wordNgrams": 2, "bucket": 1000, "labels": 5},
    "ova": {"form": "words", "dim": 9, "loss": "ova", "minn": 2, "maxn": 3, "bucket": 1000, "labels": 3},
    "ns": {"form": "plain", "dim": 16, "loss": "ns", "labels": 4},
    "quantised": {"form": "words", "dim": 16, "wordNgrams": 2, "minn": 2, "maxn": 4, "bucket": 3000, "quantise": {"qnorm": True}},
    "pruned": {"form": "words", "dim": 16, "wordNgrams": 2, "minn": 2, "maxn": 4, "bucket": 3000, "quantise": {"cutoff": 600}},
    "pruned words": {"form": "lower", "dim": 12, "wordNgrams": 3, "bucket": 3000, "quantise": {"cutoff": 300, "qnorm": True, "dsub": 5}},
}  # fmt: skip


def make_texts(seed: int, count: int, longest: int = 60) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choice(WORDS) + chance.choice(SPACES) for _ in range(chance.randrange(longest))) for _ in range(count)]


TEXTS = [*make_texts(1, 150), *make_texts(2, 3, 3000), *WORDS, "", " ", "\n", "</s>", "\0", "unheard-of", "🦄"]


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


def make_classifier(models: dict[str, Path], name: str, **options: Any) -> tuple[Path, Classifier]:
    path = models[name]
    labels = load_model(str(path)).get_labels()
    head = Head(
        label=name, file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), positive=labels[-1],
        **{key: options.pop(key) for key in ("complement", "calibration", "threshold") if key in options},
    )  # fmt: skip
    return path.parent, Classifier(name=name, form=KINDS[name]["form"], heads=(head,), **options)


def make_heads(models: dict[str, Path], **options: Any) -> list[LoadedHead]:
    return [head for name in models for head in load_heads(*make_classifier(models, name, **options))]


def expected_raw(path: Path, texts: list[str]) -> npt.NDArray[np.float64]:
    """fastText's probability of the label that `make_classifier` calls positive: 0 where it is not listed, NaN where it knows nothing."""
    model = load_model(str(path))
    positive, known, options = model.get_labels()[-1], set(model.get_words()), model.f.getArgs()
    found = []
    for text, labels, scores in zip(texts, *model.predict(texts, k=-1)):
        knows = text and (options.maxn or options.wordNgrams > 1 or not known.isdisjoint(re.split("[ \t\r\v\f\0]+", text)))
        found.append(dict(zip(labels, scores)).get(positive, 0.0) if knows and len(labels) else np.nan)
    return np.minimum(np.array(found, np.float64), 1)


def close(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], kind: dict[str, Any]) -> None:
    assert (np.isnan(found) == np.isnan(expected)).all()
    difference = np.nan_to_num(np.abs(found - expected))
    independent = kind.get("loss") in ("ova", "ns")
    assert difference.max(initial=0) <= (TABLE_STEP if independent else ROUNDING)
    assert (difference > ROUNDING).mean() < 0.05 * independent or not independent


def windows_of(line: str, words: int, mark_lines: bool) -> list[str]:
    """A written text in windows, slowly."""
    tokens = re.findall(r"[^ \t\n\r\f\v\0]+", line)
    counted = [place for place, token in enumerate(tokens) if not (mark_lines and token == "<nl>")]
    starts = [0, *counted[words::words]]
    if len(starts) > 1 and len(counted) % words and 2 * (len(counted) % words) < words:
        starts.pop()
    return [" ".join(tokens[start:end]) for start, end in zip(starts, [*starts[1:], len(tokens)])]


def test_all_models_at_once(models: dict[str, Path]) -> None:
    found = Scorer(make_heads(models)).score(pa.array(TEXTS))
    for name, scores in zip(KINDS, found):
        lines = write_form(KINDS[name]["form"], pa.array(TEXTS)).to_pylist()
        expected = expected_raw(models[name], lines)
        close(scores.raw, expected, KINDS[name])
        assert np.array_equal(scores.raw, scores.score, equal_nan=True)
        assert np.array_equal(scores.share, np.where(np.isnan(scores.score), np.nan, scores.score >= 0.5), equal_nan=True)


@pytest.mark.parametrize("words", [1, 2, 7, 40])
def test_windows(models: dict[str, Path], words: int) -> None:
    """The greatest calibrated score of the windows, and the share above the threshold, for heads with other windows and calibrations."""
    calibration = Calibration(method="platt", slope=1.7, intercept=-0.4)
    heads = [*make_heads(models, window=words, calibration=calibration, threshold=0.3, complement=True), *make_heads(models, window=25)]
    found = Scorer(heads).score(pa.array(TEXTS))
    for head, scores in zip(heads, found):
        lines = write_form(head.form, pa.array(TEXTS)).to_pylist()
        windows = [windows_of(line, head.window, head.form == "words") for line in lines]
        raw = expected_raw(models[head.label], [window for part in windows for window in part])
        raw = 1 - raw if head.complement else raw
        score = head.calibration.apply(raw)
        ends = np.cumsum([len(part) for part in windows])
        pieces = [slice(end - len(part), end) for end, part in zip(ends, windows)]
        close(
            scores.raw, np.array([np.nan if np.isnan(raw[piece]).all() else np.nanmax(raw[piece]) for piece in pieces]), KINDS[head.label]
        )
        best = np.array([np.nan if np.isnan(score[piece]).all() else np.nanmax(score[piece]) for piece in pieces])
        close(scores.score, best, {**KINDS[head.label], "loss": "ova"})
        unsure = np.array([(np.abs(score[piece] - head.threshold) < 2 * TABLE_STEP).mean() for piece in pieces])
        share = np.array([np.nan if np.isnan(score[piece]).all() else (score[piece] >= head.threshold).mean() for piece in pieces])
        assert (np.isnan(share) == np.isnan(scores.share)).all()
        assert (np.nan_to_num(np.abs(share - scores.share)) <= unsure + 1e-12).all()


@settings(max_examples=500)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 12), st.booleans(), st.integers(0, 3))
def test_windows_are_cut_as_slowly(lines: list[bool], words: int, mark_lines: bool, before: int) -> None:
    tokens = ["<nl>" if line else f"word{place}" for place, line in enumerate(lines)]
    keys = np.array([7] * before + [1 if line else 2 + place for place, line in enumerate(lines)], np.uint64)
    begins = np.full(len(tokens) + 2, -1)
    count = cut_windows(keys, before, before + len(tokens), words, np.uint64(mark_lines), begins)
    assert begins[count] == NEVER
    ends = [*begins[1:count], before + len(tokens)]
    cut = [" ".join(tokens[begin - before : end - before]) for begin, end in zip(begins, ends)]
    assert cut == (windows_of(" ".join(tokens), words, mark_lines) if words else [" ".join(tokens)])


def test_a_text_does_not_depend_on_others(models: dict[str, Path]) -> None:
    """Not on the batch, on what was scored before, or on the other heads: to the last bit."""
    heads = [*make_heads(models, window=10), *make_heads(models)]
    scorer = Scorer(heads)
    whole = scorer.score(pa.array(TEXTS))
    again = scorer.score(pa.array(TEXTS[::-1]))
    for one, other in zip(whole, again):
        assert np.array_equal(one.score, other.score[::-1], equal_nan=True) and np.array_equal(one.share, other.share[::-1], equal_nan=True)
    for place in range(0, len(TEXTS), 17):
        for one, other in zip(whole, scorer.score(pa.array([TEXTS[place]]))):
            assert np.array_equal(one.score[place], other.score[0], equal_nan=True)
    for head, scores in zip(heads, whole):
        assert np.array_equal(Scorer([head]).score(pa.array(TEXTS))[0].score, scores.score, equal_nan=True)
    assert [len(scores.score) for scores in scorer.score(pa.array([], pa.large_string()))] == [0] * len(heads)


def test_what_can_not_be_loaded(models: dict[str, Path], tmp_path: Path) -> None:
    folder, classifier = make_classifier(models, "plain")
    head = classifier.heads[0]
    with pytest.raises(
        InputError, match=r"plain\.bin: the model has no label '__label__maybe' \(it has __label__(yes|no), __label__(yes|no)\)\."
    ):
        load_heads(folder, classifier.model_copy(update={"heads": (head.model_copy(update={"positive": "__label__maybe"}),)}))
    with pytest.raises(InputError, match=r"plain\.bin: not the model that the classifier was made with \(sha256"):
        load_heads(folder, classifier.model_copy(update={"heads": (head.model_copy(update={"sha256": "0" * 64}),)}))
    with pytest.raises(InputError, match=r"plain\.bin: the model can't be read \(No such file"):
        load_heads(tmp_path, classifier)
    (tmp_path / "plain.bin").write_text("no model")
    wrong = head.model_copy(update={"sha256": hashlib.sha256(b"no model").hexdigest()})
    with pytest.raises(InputError, match=r"plain\.bin: not a fastText model that can be used \(it has another format\)\."):
        load_heads(tmp_path, classifier.model_copy(update={"heads": (wrong,)}))
