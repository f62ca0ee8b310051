"""Scores against transformers' own pipeline and against what FineWeb-Edu's script does, text by text."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from corpusmill.filters.step import DocumentBatch, build_steps, resolve_step
from corpusmill.filters.transformer import outputs

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def scored() -> Callable[..., dict[str, list[Any]]]:
    """`scored(texts, **options)`: the step's columns as lists; a step is set up once for its options."""
    steps: dict[str, Any] = {}

    def score(texts: list[str], **options: Any) -> dict[str, list[Any]]:
        if repr(options) not in steps:
            (steps[repr(options)],) = build_steps([resolve_step({"transformer": options})])
            steps[repr(options)].step.setup()
        step = steps[repr(options)]
        measured = step.step.measure(DocumentBatch(pa.table({}), pa.array(texts, pa.large_string()), "words"))
        return {name: pa.array(measured.columns[name], kind).to_pylist() for name, kind in step.columns.items()}

    return score


def by_pipeline(model: str, texts: list[str], **options: Any) -> list[dict[str, float]]:
    """Scores by label of each text: one at a time, so without padding."""
    classify = pipeline("text-classification", model=model, top_k=None, device="cpu")
    found = classify(texts, truncation=True, batch_size=1, **options)
    return [{item["label"]: item["score"] for item in labels} for labels in found]


def test_regression_as_fineweb_edu_does_it(regression: str, real_texts: list[str], hostile_texts: list[str], scored: Callable) -> None:
    """The arithmetic of run_edu_bert.py (huggingface/cosmopedia, classification), in float32 and for one text at a time."""
    texts = [*real_texts, *hostile_texts, ""]
    tokenizer, model = AutoTokenizer.from_pretrained(regression), AutoModelForSequenceClassification.from_pretrained(regression)
    with torch.no_grad():
        inputs = [tokenizer([text], return_tensors="pt", padding="longest", truncation=True) for text in texts]
        logits = [model(**given).logits.squeeze(-1).float().cpu().numpy()[0] for given in inputs]
    found = scored(texts, model=regression)
    assert list(found) == ["transformer", "transformer_int"]
    np.testing.assert_allclose(found["transformer"], logits, atol=1e-5)
    assert found["transformer_int"] == [round(max(0, min(score, 5))) for score in logits]
    assert len(set(found["transformer"])) > 100
    assert [score["LABEL_0"] for score in by_pipeline(regression, texts[:50])] == pytest.approx(found["transformer"][:50], abs=1e-5)


def test_whole_numbers_round_as_python_does(regression: str, scored: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.array([-0.6, 0.5, 1.5, 2.5, 2.5001, 4.51, 7.0], np.float32)
    monkeypatch.setattr("corpusmill.filters.transformer_model.Classifier.logits", lambda *_: scores[:, None])
    found = scored(["a"] * len(scores), model=regression)["transformer_int"]
    assert found == [round(max(0, min(score, 5))) for score in scores] == [0, 0, 2, 2, 3, 5, 5]
    assert scored(["a"] * len(scores), model=regression, highest=3)["transformer_int"] == [0, 0, 2, 2, 3, 3, 3]
    assert list(scored(["a"] * len(scores), model=regression, highest=None)) == ["transformer"]


def test_several_labels_as_the_pipeline_has_them(topics: str, real_texts: list[str], hostile_texts: list[str], scored: Callable) -> None:
    texts = [*real_texts, *hostile_texts, ""]
    found, expected = scored(texts, model=topics, name="topic"), by_pipeline(topics, texts, max_length=96)
    assert list(found) == ["topic_news", "topic_how_to", "topic_shop"]
    for column, label in zip(found, ("news", "how to", "shop")):
        np.testing.assert_allclose(found[column], [scores[label] for scores in expected], atol=1e-5)
    assert np.ptp(found["topic_news"]) > 0.1
    assert scored(texts, model=topics, name="shop", label="shop")["shop"] == found["topic_shop"]


def test_labels_that_hold_at_once(toxicity: str, real_texts: list[str], scored: Callable) -> None:
    found, expected = scored(real_texts, model=toxicity, name="toxic"), by_pipeline(toxicity, real_texts)
    np.testing.assert_allclose(found["toxic_insult"], [scores["insult"] for scores in expected], atol=1e-5)
    np.testing.assert_allclose(found["toxic_threat"], [scores["threat"] for scores in expected], atol=1e-5)
    softmax = by_pipeline(toxicity, real_texts, function_to_apply="softmax")
    one = scored(real_texts, model=toxicity, output="softmax", label="threat")["transformer"]
    np.testing.assert_allclose(one, [scores["threat"] for scores in softmax], atol=1e-5)


@pytest.mark.parametrize("model", ["regression", "topics"])
def test_a_text_has_the_same_bytes_alone_in_company_and_in_any_order(
    model: str, request: pytest.FixtureRequest, real_texts: list[str], hostile_texts: list[str], scored: Callable
) -> None:
    options = {"model": request.getfixturevalue(model)}
    texts = [*real_texts, *hostile_texts, ""]
    found = scored(texts, **options)
    order = np.random.default_rng(5).permutation(len(texts))
    shuffled = scored([texts[place] for place in order], **options)
    alone = [scored([text], **options) for text in texts]
    for column, values in found.items():
        assert [values[place] for place in order] == shuffled[column]
        assert [single[column][0] for single in alone] == values


def test_how_large_batches_are_changes_no_more_than_rounding(regression: str, real_texts: list[str], scored: Callable) -> None:
    found = scored(real_texts, model=regression)["transformer"]
    for budget in (1, 300, 50_000):
        np.testing.assert_allclose(scored(real_texts, model=regression, batch_tokens=budget)["transformer"], found, atol=3e-6)


def test_the_number_of_threads_changes_no_byte_and_is_left_as_it_was(regression: str, real_texts: list[str], scored: Callable) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = scored(real_texts, model=regression)
        torch.set_num_threads(2)
        assert scored(real_texts, model=regression) == one
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("model", ["topics", "toxicity"])
def test_windows_by_their_maximum_and_their_mean(
    model: str, request: pytest.FixtureRequest, real_texts: list[str], hostile_texts: list[str], scored: Callable
) -> None:
    folder, texts, room = request.getfixturevalue(model), [*real_texts[::5], *hostile_texts[:3], ""], 30
    tokenizer, opened = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    activation = torch.softmax if model == "topics" else lambda values, _: torch.sigmoid(values)
    highest, mean = [], []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        first, last = tokenizer("")["input_ids"]
        with torch.no_grad():
            scores = torch.cat([activation(opened(torch.tensor([[first, *piece, last]])).logits, 1) for piece in pieces])
        highest.append(scores.max(0).values.tolist())
        weights = torch.tensor([max(len(piece), 1) for piece in pieces])[:, None]
        mean.append(((scores * weights).sum(0) / weights.sum()).tolist())
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) > 10 * room
    for windows, expected in (("max", highest), ("mean", mean)):
        found = scored(texts, model=folder, window=room + 2, windows=windows)
        np.testing.assert_allclose(np.array(list(found.values())).T, expected, atol=1e-5)


def test_a_long_text_is_seen_to_its_end_by_windows_alone(toxicity: str, real_texts: list[str], scored: Callable) -> None:
    long = real_texts[-1]
    assert scored([long], model=toxicity) == scored([long + " Z" * 50], model=toxicity)
    assert scored([long], model=toxicity, window=96, windows="mean") != scored(
        [long + " Z" * 50], model=toxicity, window=96, windows="mean"
    )


def test_a_text_without_tokens_has_no_score(make_model: Callable, real_texts: list[str], scored: Callable) -> None:
    """GPT-2's tokenizers add no special tokens; BERT scores an empty text by those that it adds."""
    folder = make_model("gpt2", num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer._tokenizer.post_processor = None
    tokenizer.backend_tokenizer.save(f"{folder}/tokenizer.json")
    score, empty, other = scored([real_texts[0], "", real_texts[1]], model=folder)["transformer"]
    assert math.isnan(empty) and not math.isnan(score) and not math.isnan(other)
    assert scored(["", ""], model=folder)["transformer_int"] == [None, None]
    (expected,) = by_pipeline(folder, [real_texts[0]], function_to_apply="none")
    assert score == pytest.approx(expected["LABEL_0"], abs=1e-5)
    assert scored([], model=folder) == {"transformer": [], "transformer_int": []}


def test_bfloat16_is_near(regression: str, real_texts: list[str], scored: Callable) -> None:
    plain, short = (np.array(scored(real_texts, model=regression, dtype=kind)["transformer"]) for kind in ("float32", "bfloat16"))
    assert 0 < np.abs(plain - short).max() < 0.1 * np.ptp(plain)


def test_outputs() -> None:
    logits = np.array([[0.0, 1000.0], [-1000.0, -1000.0]], np.float32)
    assert outputs(logits, "softmax").tolist() == [[0, 1], [0.5, 0.5]]
    assert outputs(logits, "sigmoid").tolist() == [[0.5, 1], [0, 0]]
    assert outputs(logits, "regression").tolist() == logits.tolist()


def test_rules_and_names(regression: str, toxicity: str) -> None:
    edu, toxic = build_steps(
        [
            resolve_step({"transformer": {"model": regression, "name": "edu", "threshold": 2.5}}),
            resolve_step({"transformer": {"model": toxicity, "name": "toxic", "threshold": {"threat": 0.5}, "comparison": ">"}}),
        ]
    )
    assert (edu.name, toxic.name) == ("transformer:edu", "transformer:toxic")
    assert list(edu.columns) == list(edu.step.document_columns) == ["edu", "edu_int"]
    rules = [rule.as_json() for step in (edu, toxic) for rule in step.rules]
    assert [(rule["rule"], rule["column"], rule["comparison"], rule["threshold"]) for rule in rules] == [
        ("edu", "edu", "<", 2.5), ("toxic_threat", "toxic_threat", ">", 0.5),
    ]  # fmt: skip
    assert (edu.step.gpus, build_steps([resolve_step({"transformer": {"model": regression, "device": "cpu"}})])[0].step.gpus) == (1, 0)
