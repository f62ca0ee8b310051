"""What can be wrong with a model, each in one sentence."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.torch import load_file, save_file

from corpusmill.filters.step import DocumentBatch, build_steps, resolve_step
from corpusmill.filters.transformer import TransformerConfig, read_description, read_labels
from corpusmill.pipeline.errors import ConfigError, CorpusmillError
from corpusmill.pipeline.recipe import validate_recipe


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


@pytest.mark.parametrize("model", ["/no/such/folder", "./nothing", "a folder", "a/b/c"])
def test_no_such_folder(model: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(model=model)
    assert str(refused.value) == (
        f"recipe.yaml: filter.steps.0.transformer: {model}: there is no such folder, and it is no name of a model on Hugging Face's hub."
    )


def test_a_name_on_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as refused:
        resolve(model="nobody/no-such-model")
    assert str(refused.value) == (
        "recipe.yaml: filter.steps.0.transformer: nobody/no-such-model: there is no such folder, and it can't be had from Hugging Face's "
        "hub (it is not in the cache, and the hub can't be reached or HF_HUB_OFFLINE is set)."
    )


def test_a_model_in_the_hubs_cache_is_used_and_its_commit_recorded(
    regression: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The cache as huggingface_hub lays it out; nothing is asked of the network."""
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
    (repository / "snapshots" / commit / "model.safetensors").unlink()  # as another program leaves it that wanted the tokenizer alone
    with pytest.raises(ConfigError, match=r"someone/edu, as far as .* give it here: has no weights in safetensors"):
        resolve(model="someone/edu")


def test_a_folder_is_relative_to_the_recipe(copied: Path) -> None:
    assert resolve_step({"transformer": {"model": "model"}}, str(copied.parent))["transformer"]["model"] == str(copied)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"model: not a transformers model \(it has no config\.json\)\.$"),
        (
            "model.safetensors",
            None,
            r"has no weights in safetensors, and pickled ones are not read \(convert them with save_pretrained\)\.$",
        ),
        ("config.json", "{", r"config\.json: not a model's configuration \(Expecting .*\)\.$"),
        ("config.json", "[]", r"config\.json: not a model's configuration \(it names no model_type\)\.$"),
    ],
)
def test_a_folder_that_is_no_model(copied: Path, file: str, content: str | None, message: str) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"a pickle")
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_text(content)
    with pytest.raises(ConfigError, match=message):
        resolve(model=str(copied))


def test_without_the_extra(regression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as refused:
        resolve(model=regression)
    assert str(refused.value) == (
        "recipe.yaml: filter.steps.0.transformer: the step transformer needs the package transformers: "
        "pip install 'corpusmill[transformers]'."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "sports"}, r"label: the model has none that is called 'sports' \(it has news, how to, shop\)"),
        ({"threshold": 0.5}, r"threshold: with several labels it has to name those that decide"),
        ({"threshold": {"sports": 0.5}}, r"threshold: no score of a label 'sports' \(there are news, how to, shop\)"),
        ({"label": "news", "threshold": {"shop": 0.5}}, r"threshold: no score of a label 'shop' \(there are news\)"),
        ({"label": "news", "threshold": float("nan")}, r"threshold: expected a number"),
        ({"window": 20, "max_length": 30}, r"window: all of a text counts, so max_length has no place"),
        ({"window": 20, "overlap": 20}, r"overlap: has to be smaller than `window`"),
        ({"overlap": 5}, r"overlap: has to be smaller than `window`"),
        ({"name": "a-b"}, r"transformer\.name: string should match pattern"),
        ({"comparison": "=="}, r"transformer\.comparison: input should be '<', '<=', '>' or '>='"),
        ({"model": 7}, r"transformer\.model: input should be a valid string"),
        ({"gpus": 2}, r"transformer\.gpus: input should be less than or equal to 1"),
        ({"labl": "news"}, r"transformer\.labl: unknown key, expected one of model, revision, name"),
    ],
)
def test_options_that_do_not_fit(topics: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(**{"model": topics, **options})


def test_softmax_of_one_label_and_labels_of_one_name(regression: str, copied: Path) -> None:
    with pytest.raises(ConfigError, match=r"output: with one label, softmax gives 1 for every text"):
        resolve(model=regression, output="softmax")
    change(copied / "config.json", id2label={"0": "a b", "1": "a-b"})
    with pytest.raises(ConfigError, match=r"two of the model's labels would give one column, so name one `label`\.$"):
        resolve(model=str(copied))
    with pytest.raises(ConfigError, match="two columns have the name transformer_int"):
        validate_recipe(
            {
                "filter": {
                    "steps": [{"transformer": {"model": regression}}, {"transformer": {"model": regression, "name": "transformer_int"}}]
                }
            },
            "r",
        )


def test_a_model_without_a_head_is_refused(make_model: Callable[..., str]) -> None:
    model = make_model("bare")
    with pytest.raises(ConfigError) as refused:
        set_up(model=model)
    assert (
        str(refused.value) == f"{model}: has no weights for classifier.bias and 1 more, so it is no trained BertForSequenceClassification."
    )


def test_weights_that_are_damaged_or_of_another_model(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    save_file({**weights, "classifier.weight": weights["classifier.weight"][:, :7].contiguous()}, copied / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model: can't be opened as a sequence classifier of transformers \(RuntimeError: [^\n]*\)\.$"):
        set_up(model=str(copied))
    (copied / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"can't be opened as a sequence classifier of transformers \(SafetensorError: [^\n]*\)\.$"):
        set_up(model=str(copied))


def test_a_model_that_classifies_no_texts(copied: Path) -> None:
    change(copied / "config.json", model_type="vit")
    with pytest.raises(ConfigError, match=r"can't be opened as a sequence classifier of transformers \(\w+: [^\n]*\)\.$"):
        set_up(model=str(copied))


def test_code_that_comes_with_a_model_is_not_run(copied: Path) -> None:
    marker = copied / "it ran"
    (copied / "own.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nfrom transformers import BertConfig as Own\n")
    names = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Own", "AutoTokenizer": ["own.Own", None]}
    change(copied / "config.json", model_type="own", auto_map=names)
    change(copied / "tokenizer_config.json", auto_map=names, tokenizer_class="Own")
    with pytest.raises(ConfigError, match=r"can't be opened as a sequence classifier"):
        set_up(model=str(copied))
    assert not marker.exists()


def test_a_tokenizer_without_padding(make_model: Callable[..., str]) -> None:
    model = Path(make_model("gpt2", num_labels=1))
    change(model / "tokenizer_config.json", pad_token=None)
    with pytest.raises(ConfigError, match=r"its tokenizer has no token for padding, which batches need\.$"):
        set_up(model=str(model))


def test_inputs_that_are_too_long_or_have_no_room(topics: str, regression: str) -> None:
    with pytest.raises(ConfigError, match=r"takes at most 96 tokens, not 97\.$"):
        set_up(model=topics, max_length=97)
    with pytest.raises(ConfigError, match=r"takes at most 96 tokens, not 512\.$"):
        set_up(model=regression, window=512)
    with pytest.raises(ConfigError, match=r"inputs of 2 tokens have no room for text \(2 are special\)\.$"):
        set_up(model=topics, max_length=2)
    with pytest.raises(ConfigError, match=r"inputs of 10 tokens have no room for text"):
        set_up(model=topics, window=10, overlap=8)


def test_a_gpu_that_is_not_there(regression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device: cuda is asked for, and torch finds no GPU here \(`auto` takes the CPU then\)\.$"):
        set_up(model=regression, device="cuda")


def test_another_model_than_the_recipe_was_resolved_with(copied: Path) -> None:
    resolved = resolve_step({"transformer": {"model": str(copied)}})
    change(copied / "config.json", id2label={"0": "edu"})
    (step,) = build_steps([resolved])
    with pytest.raises(ConfigError, match=r"has the labels edu, not LABEL_0 as before\.$"):
        step.step.setup()


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


def test_a_configuration_that_is_resolved_asks_no_model() -> None:
    config = TransformerConfig(model="/gone", labels=("a", "b"), output="softmax", label="b")
    assert config.score_columns == {"transformer": "b"}
