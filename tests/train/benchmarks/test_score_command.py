"""`corpusmill score`: a table of any model folder's scores, JSON, and faults in one sentence."""

import json
import sys

import pytest
from benchmark_items import ITEMS
from small_models import random_model

from corpusmill import cli
from corpusmill.train.benchmarks.config import TaskConfig
from corpusmill.train.benchmarks.measure import ModelUnderTest
from corpusmill.train.benchmarks.read import read_task
from corpusmill.train.checkpoint import save_model


@pytest.fixture
def corpusmill(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["corpusmill", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def model(tmp_path, tokenizer_json):
    save_model(random_model(vocab_size=600, layers=1, context=24), tmp_path / "model", {"tokenizer.json": tokenizer_json})
    return tmp_path / "model"


@pytest.fixture
def sets(tmp_path):
    for name, rows in ITEMS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: f"{name}={tmp_path / name}.jsonl" for name in ITEMS}


def test_table_and_json(corpusmill, model, sets):
    asked = ["--task", sets["piqa"], "--task", sets["sciq"], "--task", sets["lambada"]]
    code, out, err = corpusmill("score", model, *asked, "--limit", 2)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and err == "" and lines[1] == ["task", "items", "metric", "score", "chance"]
    tested = ModelUnderTest(model, "cpu")
    configs = [TaskConfig(task=name, path=sets[name].partition("=")[2]) for name in ("piqa", "sciq")]
    of = {config.task: tested.score(config, read_task(config)).summary for config in configs}
    acc = of["piqa"]["metrics"]["acc"]
    assert ["acc", f"{acc['value']:.1%}", "±", f"{100 * acc['stderr']:.1f}", "50.0%"] in lines
    assert ["LAMBADA", "2", "of", "3", "acc", "0.0%", "±", "0.0"] in lines
    assert f"SciQ: the beginning of {of['sciq']['cut']} items did not fit into the model's context." in out and of["sciq"]["cut"]
    code, out, _ = corpusmill("score", model, *asked[:4], "--json")
    assert code == 0 and json.loads(out) == of


@pytest.mark.parametrize("task, sentence", [
    ("foo", "corpusmill: --task foo: the name should be 'blimp', 'hellaswag', "),
    ("lambada", "corpusmill: evaluate: no package ships the items of lambada; give the path of their file.\n"),
    ("piqa=nowhere.jsonl", "corpusmill: nowhere.jsonl: no such file or folder.\n"),
])  # fmt: skip
def test_faults(corpusmill, model, task, sentence):
    code, _, err = corpusmill("score", model, "--task", task)
    assert code == 2 and err.startswith(sentence) and err.count("\n") == 1


def test_what_is_no_model(corpusmill, sets, tmp_path):
    code, _, err = corpusmill("score", tmp_path / "none", "--task", sets["piqa"])
    assert code == 2 and err == f"corpusmill: {tmp_path / 'none'}: no such model folder.\n"


def test_a_task_stands_there_once(corpusmill, model, sets):
    code, _, err = corpusmill("score", model, "--task", sets["piqa"], "--task", "piqa")
    assert (code, err) == (2, "corpusmill: --task piqa: stands there twice.\n")
