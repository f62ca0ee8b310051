"""Compares every task with lm-evaluation-harness on one exported model: log-likelihoods, item by item, and scores."""

import json
from types import SimpleNamespace

import pytest
import torch
from benchmark_items import ITEMS
from harness import harness_model, harness_scores, harness_task
from small_models import random_model

from corpusmill.train.benchmarks import ModelUnderTest, read_task, summarise
from corpusmill.train.checkpoint import save_model
from corpusmill.train.evaluate import TaskConfig
from corpusmill.train.template import CHATML, template_files

CONTEXT = 128


def exported(folder, tokenizer_json):
    model = random_model(seed=3, vocab_size=600, context=CONTEXT)
    save_model(model, folder, {"tokenizer.json": tokenizer_json, **template_files(CONTEXT, CHATML, "<|endoftext|>")})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_json):
    return exported(tmp_path_factory.mktemp("exported") / "model", tokenizer_json)


@pytest.fixture(scope="module")
def ours(folder):
    return ModelUnderTest(folder, "cpu", batch_tokens=300)


@pytest.fixture(scope="module")
def theirs(folder):
    return harness_model(folder)


@pytest.fixture
def both(ours, theirs, tmp_path):
    """Scores a task with both programs: (this result, their metrics, their samples)."""

    def score(name, items=None, ours=ours, theirs=theirs, shots=0):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in items or ITEMS[name]))
        config = TaskConfig(task=name, path=str(path), shots=shots)
        sets = read_task(config)
        table = ours.score(sets)
        found = SimpleNamespace(table=table, summary=summarise(config, sets, table))
        task = harness_task(name, path, tmp_path / "cache")
        return (found, *harness_scores(theirs, task, shots))

    return score


def same_items(found, samples):
    rows = found.table.to_pylist()
    assert len(rows) == len(samples)
    for row, sample in zip(rows, samples, strict=True):
        given = [float(response[0][0]) for response in sample["resps"]]
        assert row["log_likelihoods"] == pytest.approx(given, abs=1e-4)
        if row["continuations"]:
            assert row["greedy"] == [str(response[0][1]) == "True" for response in sample["resps"]]
        for metric in ("acc", "acc_norm"):
            if metric in sample:
                assert row[metric] == sample[metric]


def same_scores(found, metrics, names):
    for name in names:
        score = found.summary["metrics"][name]
        assert score["value"] == pytest.approx(metrics[f"{name},none"], rel=1e-5)
        assert score["stderr"] == pytest.approx(metrics[f"{name}_stderr,none"], rel=1e-9)


@pytest.mark.parametrize("name", ["hellaswag", "arc_easy", "arc_challenge", "piqa", "sciq", "winogrande"])
def test_choices(both, name):
    found, metrics, samples = both(name)
    same_items(found, samples)
    same_scores(found, metrics, ["acc"] if name == "winogrande" else ["acc", "acc_norm"])


@pytest.mark.parametrize("name", ["arc_easy", "winogrande"])
def test_examples_before_an_item_come_from_the_other_items(both, name):
    found, metrics, samples = both(name, shots=1)
    same_items(found, samples)
    same_scores(found, metrics, ["acc"])


def test_what_is_too_long_loses_its_beginning(both):
    long = {**ITEMS["sciq"][1], "support": "The mill grinds grain between heavy stones. " * 40}
    found, metrics, samples = both("sciq", [*ITEMS["sciq"], long])
    same_items(found, samples)
    assert found.table["cut"].to_pylist() == [False, False, True] and found.summary["cut"] == 1
    same_scores(found, metrics, ["acc", "acc_norm"])


def test_last_words(both):
    found, metrics, samples = both("lambada")
    same_items(found, samples)
    same_scores(found, metrics, ["acc"])


def test_a_word_that_the_model_would_write_itself(both, ours):
    """A random model hardly ever guesses a word, so the test searches a passage that ends with the model's own output."""
    encoder, model = ours, ours.model
    starts = (f"{row['endings'][n]} {row['ctx_a']}" for row in ITEMS["hellaswag"] for n in range(4))
    contexts = [" ".join(words[:n]) for text in starts if (words := text.split()) for n in range(2, len(words))]
    written = [int(model(torch.from_numpy(ids)[None])[0, -1].argmax()) for ids in encoder.encode(contexts, special=True)]
    texts = [context + encoder.tokenizer.decode([token]) for context, token in zip(contexts, written, strict=True)]
    guessed = [text for text, context in zip(texts, contexts, strict=True) if text.rpartition(" ")[0] == context and text[-1] != " "]
    found, metrics, samples = both("lambada", [{"text": text} for text in [*guessed[:2], *(row["text"] for row in ITEMS["lambada"])]])
    same_items(found, samples)
    assert found.table["acc"].to_pylist() == [1, 1, 0, 0, 0]
    same_scores(found, metrics, ["acc"])


def test_minimal_pairs(both):
    """The harness has BLiMP as 67 tasks, and averages their means."""
    from lm_eval.api.metrics import aggregate_subtask_metrics, unweighted_mean_stderr

    found, _, samples = both("blimp")
    same_items(found, samples)
    parts = [both("blimp", [row for row in ITEMS["blimp"] if row["UID"] == uid])[1] for uid in ("agreement", "island")]
    assert list(found.summary["groups"]) == ["agreement", "island"]
    assert [of["metrics"]["acc"]["value"] for of in found.summary["groups"].values()] == [of["acc,none"] for of in parts]
    whole = aggregate_subtask_metrics([of["acc,none"] for of in parts], [2, 2], weight_by_size=False)
    assert found.summary["metrics"]["acc"]["value"] == pytest.approx(whole)
    assert found.summary["metrics"]["acc"]["stderr"] == pytest.approx(unweighted_mean_stderr([of["acc_stderr,none"] for of in parts]))


def test_a_tokenizer_that_begins_every_text_itself(both, tokenizer_json, tmp_path):
    """Llama's tokenizer does so."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    folder = exported(tmp_path / "model", tokenizer.to_str().encode())
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    found, _, samples = both("blimp", ours=ModelUnderTest(folder, "cpu"), theirs=harness_model(folder))
    same_items(found, samples)
