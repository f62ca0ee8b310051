"""Compares the step transformer with transformers itself."""

import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from corpusmill.filters.rules import METADATA_KEY
from corpusmill.filters.step import DocumentBatch, build_steps, resolve_step
from corpusmill.filters.transformer import read_description, read_labels
from corpusmill.pipeline.errors import ConfigError, CorpusmillError
from corpusmill.pipeline.on_ray.engine import RayEngine
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

# ---- Scores against transformers' own pipeline and against FineWeb-Edu's script, text by text.

pytestmark = pytest.mark.rounding


@pytest.fixture(scope="module")
def scored() -> Callable[..., dict[str, list[Any]]]:
    """Returns `scored(texts, **options)`: the step's columns as lists; a step is set up once for its options."""
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
    """Returns scores by label of each text, one text at a time, so without padding."""
    classify = pipeline("text-classification", model=model, top_k=None, device="cpu")
    found = classify(texts, truncation=True, batch_size=1, **options)
    return [{item["label"]: item["score"] for item in labels} for labels in found]


def test_regression_as_fineweb_edu_does_it(regression: str, real_texts: list[str], hostile_texts: list[str], scored: Callable) -> None:
    """Uses the arithmetic of run_edu_bert.py (huggingface/cosmopedia, classification), in float32 and for one text at a time."""
    texts = [*real_texts, *hostile_texts, ""]
    tokenizer, model = AutoTokenizer.from_pretrained(regression), AutoModelForSequenceClassification.from_pretrained(regression)
    with torch.no_grad():
        inputs = [tokenizer([text], return_tensors="pt", padding="longest", truncation=True) for text in texts]
        logits = [model(**given).logits.squeeze(-1).float().cpu().numpy()[0] for given in inputs]
    found = scored(texts, model=regression)
    assert list(found) == ["transformer", "transformer_int"]
    np.testing.assert_allclose(found["transformer"], logits, atol=1e-5)
    assert found["transformer_int"] == [round(max(0, min(score, 5))) for score in logits]
    assert len(set(found["transformer"])) > 30
    assert [score["LABEL_0"] for score in by_pipeline(regression, texts[:20])] == pytest.approx(found["transformer"][:20], abs=1e-5)


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


def test_a_text_has_the_same_bytes_alone_in_company_and_in_any_order(
    topics: str, regression: str, real_texts: list[str], hostile_texts: list[str], scored: Callable
) -> None:
    few = [*real_texts[:4], *hostile_texts[:6], ""]
    for options, texts in (({"model": topics}, [*real_texts, *hostile_texts, ""]), ({"model": regression}, few)):
        found = scored(texts, **options)
        order = np.random.default_rng(5).permutation(len(texts))
        shuffled = scored([texts[place] for place in order], **options)
        alone = [scored([text], **options) for text in texts]
        for column, values in found.items():
            assert [values[place] for place in order] == shuffled[column]
            assert [single[column][0] for single in alone] == values


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


def test_windows_by_their_maximum_and_their_mean(topics: str, real_texts: list[str], hostile_texts: list[str], scored: Callable) -> None:
    texts, room = [*real_texts[::5], *hostile_texts[:3], ""], 30
    tokenizer, opened = AutoTokenizer.from_pretrained(topics), AutoModelForSequenceClassification.from_pretrained(topics)
    highest, mean = [], []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        first, last = tokenizer("")["input_ids"]
        with torch.no_grad():
            scores = torch.cat([torch.softmax(opened(torch.tensor([[first, *piece, last]])).logits, 1) for piece in pieces])
        highest.append(scores.max(0).values.tolist())
        weights = torch.tensor([max(len(piece), 1) for piece in pieces])[:, None]
        mean.append(((scores * weights).sum(0) / weights.sum()).tolist())
    assert max(len(tokenizer(text)["input_ids"]) for text in texts) > 10 * room
    for windows, expected in (("max", highest), ("mean", mean)):
        found = scored(texts, model=topics, window=room + 2, windows=windows)
        np.testing.assert_allclose(np.array(list(found.values())).T, expected, atol=1e-5)


def test_a_text_without_tokens_has_no_score(make_model: Callable, real_texts: list[str], scored: Callable) -> None:
    """GPT-2's tokenizers add no special tokens; BERT scores an empty text by the special tokens that it adds."""
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


# ---- The step in the stage: its report, its decisions, and the same bytes on Ray.


@pytest.fixture
def make_run(tmp_path: Path, real_texts: list[str], make_documents: Callable, finished_ingest: Callable) -> Callable[[str], Storage]:
    def make(name: str) -> Storage:
        documents = make_documents(real_texts)
        return finished_ingest(tmp_path / name, [documents.slice(start, 15) for start in range(0, len(documents), 15)])

    return make


def files(run: Any) -> dict[str, bytes]:
    return {path: run.storage.read_bytes(path) for path in run.storage.list_files() if not path.startswith("manifest")}


@pytest.mark.long
def test_ray_and_one_process_write_the_same_bytes(
    regression: str, topics: str, real_texts: list[str], measure_step: Callable, make_run: Callable, run_filter: Callable,
    ray_engine: RayEngine,
) -> None:  # fmt: skip
    median = statistics.median(measure_step("transformer", {"model": regression}, real_texts)[0]["transformer"])
    steps = [
        {"transformer": {"model": regression, "name": "edu", "threshold": median}},
        {"transformer": {"model": topics, "name": "topic", "window": 40, "threshold": {"shop": 0.4}, "comparison": ">"}},
    ]
    inline = run_filter(make_run("inline"), {"steps": steps})
    ray_engine.connect()  # so few tasks would not start Ray
    ray = run_filter(make_run("ray"), {"steps": steps}, ray_engine)
    assert files(ray) == files(inline)
    assert [row.identity for row in ray.manifest.rows()] == [row.identity for row in inline.manifest.rows()]
    shards = sorted(path for path in files(inline) if path.startswith("report/"))
    report = pa.concat_tables([read_table(inline.storage, path) for path in shards])
    failed, rows = report["failed"].to_pylist(), report.to_pylist()
    assert failed == [["edu"] * (row["edu"] < median) + ["topic_shop"] * (row["topic_shop"] > 0.4) for row in rows]
    assert 10 < sum(report["kept"].to_pylist()) < len(rows) - 10
    assert [rule["step"] for rule in json.loads(report.schema.metadata[METADATA_KEY])] == ["transformer:edu", "transformer:topic"]
    data = read_table(inline.storage, "data/part-00000.parquet")
    assert data.schema.names[-5:] == ["edu", "edu_int", "topic_news", "topic_how_to", "topic_shop"]
    assert data["edu"].to_pylist() == [
        row["edu"] for row in read_table(inline.storage, "report/part-00000.parquet").to_pylist() if row["kept"]
    ]


def test_any_file_of_the_model_redoes_the_stage(regression: str, tmp_path: Path, make_run: Callable, run_filter: Callable) -> None:
    model = Path(shutil.copytree(regression, tmp_path / "model"))
    run, options = make_run("run"), {"steps": [{"transformer": {"model": str(model)}}]}
    first = run_filter(run, options)
    before = files(first)
    (model / "README.md").write_text("says nothing about scores")
    assert run_filter(run, options).performed == 0
    (model / "tokenizer_config.json").write_text((model / "tokenizer_config.json").read_text() + "\n")
    redone = run_filter(run, options)
    assert redone.performed == len(redone.manifest.rows()) and files(redone) == before
    weights = load_file(model / "model.safetensors")
    save_file({**weights, "classifier.bias": weights["classifier.bias"] + 1}, model / "model.safetensors", {"format": "pt"})
    changed = run_filter(run, options)
    assert changed.performed == len(changed.manifest.rows())
    old, new = (pa.BufferReader(table["report/part-00000.parquet"]) for table in (before, files(changed)))
    scores = [pa.parquet.read_table(table)["transformer"].to_numpy() for table in (old, new)]
    assert scores[1] - scores[0] == pytest.approx(1, abs=1e-5)


# ---- Faults of a model, each in one sentence.


def resolve(**options: Any) -> None:
    validate_recipe({"filter": {"steps": [{"transformer": options}]}}, "recipe.yaml")


def set_up(**options: Any) -> Any:
    (step,) = build_steps([resolve_step({"transformer": options})])
    step.step.setup()
    return step.step


@pytest.fixture
def copied(regression: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(regression, tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_model_in_the_hubs_cache_is_used_and_its_commit_recorded(
    regression: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Uses the cache as huggingface_hub lays it out; the network gets no request."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--edu"
    shutil.copytree(regression, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    resolved = resolve_step({"transformer": {"model": "someone/edu"}})
    assert resolved["transformer"]["revision"] == commit
    assert resolved["transformer"]["labels"] == ["LABEL_0"]
    assert resolve_step(resolved) == resolved
    (step,) = build_steps([resolved])
    assert [Path(path).name for path in step.step.model_files()] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    (repository / "snapshots" / commit / "model.safetensors").unlink()  # as left by another program that wanted only the tokenizer
    with pytest.raises(ConfigError, match=r"someone/edu, as far as .* give it here: has no weights in safetensors"):
        resolve(model="someone/edu")


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


#: What is done to a copy of the model, the options beside `model`, and the sentence.
FAULTS: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no folder": (lambda f: shutil.rmtree(f), {}, "there is no such folder, and it is no name of a model on Hugging Face's hub"),
    "pickle": (lambda f: (f / "model.safetensors").unlink(), {}, r"has no weights in safetensors, and pickled ones are not read"),
    "no model": (lambda f: (f / "config.json").unlink(), {}, r"not a transformers model \(it has no config\.json\)\.$"),
    "softmax of one label": (lambda f: None, {"output": "softmax"}, r"output: with one label, softmax gives 1 for every text"),
    "labels of one name": (
        lambda f: change(f / "config.json", id2label={"0": "a b", "1": "a-b"}), {},
        r"two of the model's labels would give one column, so name one `label`\.$",
    ),
    "weights of another model": (
        lambda f: weights(f, lambda w: {**w, "classifier.weight": w["classifier.weight"][:, :7].contiguous()}), {},
        r"can't be opened as a sequence classifier of transformers \(RuntimeError: [^\n]*\)\.$",
    ),
    "no weights": (lambda f: (f / "model.safetensors").write_bytes(b"no weights"), {}, r"\(SafetensorError: [^\n]*\)\.$"),
    "no head": (
        lambda f: weights(f, lambda w: {name: each for name, each in w.items() if not name.startswith("classifier")}), {},
        r"has no weights for classifier\.bias and 1 more, so it is no trained BertForSequenceClassification\.$",
    ),
    "too long": (lambda f: None, {"max_length": 97}, r"takes at most 96 tokens, not 97\.$"),
    "no room": (lambda f: None, {"max_length": 2}, r"inputs of 2 tokens have no room for text \(2 are special\)\.$"),
    "no padding": (
        lambda f: change(f / "tokenizer_config.json", pad_token=None), {}, r"its tokenizer has no token for padding, which batches need\.$"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_model_is_one_sentence(copied: Path, fault: str) -> None:
    do, options, sentence = FAULTS[fault]
    do(copied)
    with pytest.raises(ConfigError, match=sentence) as refused:
        resolve(model=str(copied), **options)
        set_up(model=str(copied), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "sports"}, r"label: the model has none that is called 'sports' \(it has news, how to, shop\)"),
        ({"threshold": 0.5}, r"threshold: with several labels it has to name those that decide"),
        ({"threshold": {"sports": 0.5}}, r"threshold: no score of a label 'sports' \(there are news, how to, shop\)"),
        ({"window": 20, "max_length": 30}, r"window: the whole text counts, so max_length can't be given too"),
        ({"window": 20, "overlap": 20}, r"overlap: has to be smaller than `window`"),
    ],
)
def test_options_that_do_not_fit(topics: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(**{"model": topics, **options})


def test_another_model_than_the_recipe_was_resolved_with(copied: Path) -> None:
    resolved = resolve_step({"transformer": {"model": str(copied)}})
    change(copied / "config.json", id2label={"0": "edu"})
    (step,) = build_steps([resolved])
    with pytest.raises(ConfigError, match=r"has the labels edu, not LABEL_0 as before\.$"):
        step.step.setup()


def test_code_that_comes_with_a_model_is_not_run(copied: Path) -> None:
    marker = copied / "it ran"
    (copied / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nfrom transformers import BertConfig as Own\n")
    names = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own", "AutoTokenizer": ["own.Own", None]}
    change(copied / "config.json", model_type="own", auto_map=names)
    change(copied / "tokenizer_config.json", auto_map=names, tokenizer_class="Own")
    with pytest.raises(ConfigError, match=r"can't be opened as a sequence classifier"):
        set_up(model=str(copied))
    assert not marker.exists()


def test_scores_that_are_no_numbers_name_the_document(copied: Path, make_documents: Callable[[list[str]], pa.Table]) -> None:
    weights = load_file(copied / "model.safetensors")
    save_file({**weights, "classifier.bias": weights["classifier.bias"] * np.nan}, copied / "model.safetensors")
    documents = make_documents(["a text"])
    with pytest.raises(CorpusmillError) as refused:
        set_up(model=str(copied)).measure(DocumentBatch(documents, documents["text"].combine_chunks(), "words"))
    assert str(refused.value) == f"{copied}: gives scores that are no numbers for the document {documents['id'][0]}."


def test_labels_as_transformers_reads_them(tmp_path: Path) -> None:
    from transformers import AutoConfig

    for given in ({}, {"num_labels": 3}, {"id2label": {"1": "b", "0": "a"}}, {"id2label": {str(n): f"l{n}" for n in range(11)}}):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **given}))
        expected = AutoConfig.from_pretrained(tmp_path).id2label
        found = read_labels(read_description(tmp_path))
        assert found == tuple(expected[number] for number in sorted(expected))
