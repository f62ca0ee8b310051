"""The stage `evaluate` with benchmarks: scores of every model, what of the sets stands in the run's documents, and what is done again."""

import json

import pyarrow as pa
import pytest
from benchmark_items import GSM8K, ITEMS, LAMBADA

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.shards import read_table
from corpusmill.train.benchmarks.scores import mean_score
from corpusmill.train.evaluate import EvaluateConfig, EvaluateStage

LEAKED = "Nobody in that valley knew, and nobody would have said, why the bells rang on a night without any wind at all"
PASSAGES = [{"text": text} for text in (LEAKED, "Nothing of this passage stands anywhere in the documents, or so one hopes at least")]


@pytest.fixture
def run(pretrained_run, finish, documents_of):
    """Two files of documents; the second has one that quotes an item, with other marks."""
    quoting = {"id": "f" * 32, "url": "https://mill.test/leak", "source": "a.jsonl", "title": "",
               "text": f"Once more: {LEAKED.upper().replace(',', ' -')}. So it was."}  # fmt: skip
    finish(pretrained_run, "ingest", {
        "data/part-00000.parquet": documents_of(range(40)),
        "data/part-00001.parquet": pa.concat_tables([documents_of(range(40, 50)), pa.Table.from_pylist([quoting], DOCUMENTS)]),
    })  # fmt: skip
    return pretrained_run


@pytest.fixture
def evaluate(run, execute, tmp_path):
    def evaluated(*tasks, **options):
        stage = EvaluateStage(EvaluateConfig(samples=0, tasks=tasks, **options))
        return execute(run, stage)

    return evaluated


def written(tmp_path, name, rows):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scores_of(run):
    return json.loads(run.read_bytes("evaluate/scores.json"))["pretrain"]["tasks"]


def test_scores_with_what_the_documents_hold(run, evaluate, tmp_path):
    passages = PASSAGES + LAMBADA
    done = evaluate({"task": "lambada", "path": written(tmp_path, "lambada", passages)})
    table = read_table(run, "evaluate/benchmarks/pretrain/lambada.parquet")
    found = scores_of(run)["lambada"]
    assert found["items"] == found["total"] == table.num_rows == 5 and found["cut"] == 0
    assert found["metrics"]["acc"] == pytest.approx(mean_score(table["acc"].to_numpy().astype(float)))
    overlap = found["overlap"]
    assert {name: overlap[name] for name in ("items", "searched", "found", "scored", "documents")} == {
        "items": 5, "searched": 4, "found": 1, "scored": 1, "documents": 1,
    }  # fmt: skip
    assert overlap["without"]["acc"] == pytest.approx(mean_score(table["acc"].to_numpy()[1:].astype(float)))
    (example,) = read_table(run, "evaluate/benchmarks/overlap/lambada.parquet").to_pylist()
    assert example["url"] == "https://mill.test/leak" and example["item"] == 0 and example["share"] == 1
    assert example["passage"].startswith("NOBODY IN THAT VALLEY") and example["passage"].endswith("ANY WIND AT ALL.")
    assert done.stage.summary(done)["LAMBADA acc"] == "pretrain 0.0% ± 0.0; 1 of 5 items in the corpus"


def test_a_run_without_documents_has_no_overlap(run, execute, tmp_path):
    stage = EvaluateStage(EvaluateConfig(samples=0, tasks=({"task": "lambada", "path": written(tmp_path, "lambada", LAMBADA)},)))
    done = execute(run, stage, earlier=("pretrain",))
    assert "overlap" not in scores_of(run)["lambada"] and not [path for path in run.list_files("evaluate") if "overlap" in path]
    assert done.stage.summary(done)["LAMBADA acc"] == "pretrain 0.0% ± 0.0"


def test_a_finished_benchmark_is_not_done_again(run, evaluate, tmp_path):
    arc = {"task": "arc_easy", "path": written(tmp_path, "arc", ITEMS["arc_easy"])}
    first = evaluate(arc)
    assert evaluate(arc).performed == 0
    before = {row.task: row.identity for row in first.manifest.rows()}
    second = evaluate(arc, {"task": "piqa", "path": written(tmp_path, "piqa", ITEMS["piqa"])})
    after = {row.task: row.identity for row in second.manifest.rows()}
    assert {task for task in before if after[task] != before[task]} == {"summary"}
    assert second.performed == 6 and list(scores_of(run)) == ["arc_easy", "piqa"]  # index, 2 files, what was found, scores; the summary
    evaluate()
    assert "tasks" not in json.loads(run.read_bytes("evaluate/scores.json"))["pretrain"]
    assert not [path for path in run.list_files("evaluate") if "benchmarks" in path]


def test_a_sample_is_stated_and_so_is_what_does_not_fit(run, evaluate, tmp_path):
    rows = [*GSM8K, {**GSM8K[0], "question": "And how many stones then? " * 60}]
    done = evaluate({"task": "gsm8k", "path": written(tmp_path, "gsm8k", rows), "limit": 4, "shots": 1, "max_tokens": 8})
    found, table = scores_of(run)["gsm8k"], read_table(run, "evaluate/benchmarks/pretrain/gsm8k.parquet")
    assert (found["items"], found["total"], found["shots"], found["chance"]) == (4, 5, 1, None)
    assert table["item"].to_pylist() == sorted(table["item"].to_pylist()) and len(set(table["prompt"].to_pylist())) == 4
    assert all(prompt.count("Question:") == 2 for prompt in table["prompt"].to_pylist())
    cut = sum(table["cut"].to_pylist())
    assert found["cut"] == cut > 0
    (warning,) = [sentence for row in done.manifest.rows() for sentence in row.warnings]
    assert warning == f"pretrain: {cut} of 4 items of GSM8K are longer than the model's context; their beginning was left out."


@pytest.mark.parametrize("task, sentence", [
    ({"task": "blimp"}, r"^evaluate: no package ships the items of blimp; give the path of their file\.$"),
    ({"task": "gsm8k", "path": "nowhere.jsonl"}, r"^nowhere\.jsonl: no such file or folder\.$"),
])  # fmt: skip
def test_a_set_that_is_not_there(evaluate, task, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(task)


def test_a_task_stands_there_once():
    with pytest.raises(ValueError, match="piqa stands there twice"):
        EvaluateConfig(tasks=({"task": "piqa"}, {"task": "piqa", "limit": 3}))
