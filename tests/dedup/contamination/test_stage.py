"""Tests decontamination as part of the stage, on real sets and documents."""

import gzip
import json
import os
import random
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_runs import again

from corpusmill.dedup.config import ContaminationConfig, DedupConfig
from corpusmill.dedup.contamination.editor import ContaminationEditor, index_output
from corpusmill.dedup.contamination.find import Finder, build_index
from corpusmill.dedup.contamination.sets import read_passages, set_files
from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Task
from corpusmill.pipeline.storage import Storage

QUESTION = "Anna keeps nine hens, and each hen lays four eggs in a week; how many eggs will she have gathered when three weeks are over?"
ANSWER = "Each week there are 9 * 4 = 36 eggs, so after three weeks Anna has gathered 36 * 3 = 108 eggs altogether. #### 108"
OTHER = "A train leaves the harbour at noon with two hundred sacks of rice and loses a tenth of them on every bridge it crosses."
COLUMNS = ["contaminated_set", "contaminated_item", "contaminated_field", "contamination", "contamination_passage", "contamination_items"]


def prose(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 8))) for _ in range(count))


@pytest.fixture
def hens(tmp_path: Path) -> Path:
    path = tmp_path / "hens.jsonl"
    rows = [{"question": OTHER, "answer": "none of the bridges is long enough to say"}, {"question": QUESTION, "answer": ANSWER}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def columns(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in COLUMNS]


def test_a_document_with_an_item_is_dropped(dedup, hens: Path) -> None:  # type: ignore[no-untyped-def]
    clean = prose(0, 100)
    dirty = f"{prose(1, 60)}\n\nQ: {QUESTION.upper()}\n\nA: {ANSWER}\n\n{OTHER} {prose(2, 60)}"
    result = dedup([[clean, dirty], [prose(3, 100)]], contamination={"sets": [str(hens)]})
    assert result.kept == [clean, prose(3, 100)]
    assert [row["failed"] for row in result.report] == [[], ["contaminated"], []]
    # question and answer are whole, and the question has more words; two items of the set are found
    assert columns(result.report[1]) == ["hens", 1, "question", 1.0, QUESTION.upper(), ["hens:0", "hens:1"]]
    assert columns(result.report[0]) == columns(result.report[2]) == [None] * 6
    tasks = result.run.manifest.tasks
    assert tasks["part-00000"].failed == {"contaminated": 1} and tasks["part-00000"].counts == {"contaminated: hens": 1}
    assert tasks["contamination"].rows_in == 2
    assert result.run.stage.summary(result.run)["contaminated"] == "hens 1"


def test_a_passage_is_cut_where_enough_is_left(dedup, hens: Path) -> None:  # type: ignore[no-untyped-def]
    edited = QUESTION.replace("hens", "geese").replace("gathered", "collected")
    dirty = f"{prose(1, 60)}\n\nQ: {edited}\n\nA: {ANSWER}\n\n{prose(2, 60)}"
    little = f"{prose(4, 20)} {OTHER}"
    result = dedup([[dirty, little, prose(3, 80)]], contamination={"sets": [str(hens)], "action": "cut"})
    assert result.kept == [f"{prose(1, 60)}\n\nQ:\n\nA:\n\n{prose(2, 60)}", prose(3, 80)]
    assert [row["failed"] for row in result.report] == [[], ["contaminated"], []]
    assert [row["chars_out"] for row in result.report] == [len(result.kept[0]), 0, len(result.kept[1])]
    assert result.report[0]["contaminated_field"] == "answer" and result.report[0]["contamination_passage"] == ANSWER
    assert result.run.manifest.tasks["part-00000"].counts == {"contaminated: hens": 2}
    none = dedup([[dirty, little]], contamination={"sets": [str(hens)], "action": "cut", "keep_words": 0})
    assert none.kept[1] == prose(4, 20)


def test_report_changes_nothing_else(dedup, hens: Path) -> None:  # type: ignore[no-untyped-def]
    texts = [f"{prose(1, 30)} {QUESTION}", prose(2, 50)]
    result = dedup([texts], contamination={"sets": [str(hens)], "action": "report"})
    assert result.kept == texts and [row["kept"] for row in result.report] == [True, True]
    assert columns(result.report[0]) == ["hens", 1, "question", 1.0, QUESTION, ["hens:1"]]


def test_copies_are_not_judged_twice(dedup, hens: Path) -> None:  # type: ignore[no-untyped-def]
    text = f"{prose(1, 60)} {QUESTION}"
    result = dedup([[{"text": text, "url": "http://a.test"}, {"text": text, "url": "http://b.test"}]], contamination={"sets": [str(hens)]})
    assert sorted(row["failed"] for row in result.report) == [["contaminated"], ["exact_duplicate"]]
    assert result.kept == [] and result.run.manifest.tasks["part-00000"].counts["contaminated: hens"] == 1


def run_again(before: StageRun, **contamination: Any) -> StageRun:
    config = before.stage.config.model_copy(update={"contamination": ContaminationConfig.model_validate(contamination)})
    return again(before, stage=DedupStage(config))


def test_what_changes_redoes_what_depends_on_it(dedup, hens: Path) -> None:  # type: ignore[no-untyped-def]
    sets = [str(hens)]
    first = dedup([[prose(1, 60) + QUESTION], [prose(2, 60)]], contamination={"sets": sets}).run
    index = first.manifest.tasks["contamination"]
    assert run_again(first, sets=sets).performed == 0
    other = run_again(first, sets=sets, action="report", share=0.6, keep_words=7)
    assert other.manifest.tasks["contamination"] == index
    rows = hens.read_text()
    hens.write_text(rows + json.dumps({"question": prose(2, 60), "answer": "x"}) + "\n")
    changed = run_again(first, sets=sets)
    assert changed.manifest.tasks["contamination"].outputs != index.outputs
    assert changed.manifest.tasks["part-00001"].counts == {"contaminated: hens": 1}
    hens.write_text(rows)
    os.utime(hens, ns=(1, 1))  # the same bytes with another time: the index is made again, but nothing that depends on it
    same = run_again(changed, sets=sets)
    assert same.manifest.tasks["contamination"].outputs == index.outputs
    touched = hens.stat().st_mtime_ns + 10**9
    os.utime(hens, ns=(touched, touched))
    assert run_again(same, sets=sets).performed == 1


def make_editor(tmp_path: Path, rows: list[dict[str, str]], **options: Any) -> ContaminationEditor:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ContaminationConfig.model_validate({"sets": [str(path)], "seed": 2, "min_ngram": 3, "ngram": 5, "min_words": 3, **options})
    run = Storage(str(tmp_path / "run"))
    output = index_output(set_files(config.set_configs()), config)
    run.write_bytes("dedup/contamination/index.arrow", output.files["contamination/index.arrow"])  # type: ignore[arg-type]
    editor = ContaminationEditor(DedupConfig(contamination=config), run)
    editor.open(Task("part", (FileRef("data", "0"), FileRef("dedup/contamination/index.arrow", "0"))))
    return editor


LETTERS = st.lists(st.sampled_from(["a", "B", "c.", "(d", "é", "f\n", "1"]), max_size=40).map(" ".join)


@given(st.lists(LETTERS, min_size=1, max_size=4), st.lists(LETTERS, max_size=3))
def test_cut_texts_hold_nothing_that_can_be_found(tmp_path_factory, items: list[str], texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    editor = make_editor(tmp_path_factory.mktemp("cut"), [{"text": item} for item in items], action="cut", keep_words=0)
    texts += [f"{texts[0] if texts else ''} {item} {item.upper()}" for item in items]
    array = pa.array(texts, pa.large_string())
    edit = editor.edit(array, np.arange(len(texts)))
    assert len(editor.finder.find(edit.texts)) == 0
    found = [share is not None for share in edit.columns["contamination"].to_pylist()]
    for before, after, matched in zip(texts, edit.texts.to_pylist(), found, strict=True):
        assert (before != after) == matched and len(after) <= len(before)
        assert is_subsequence(re.findall(r"\S", after), re.findall(r"\S", before))
    again = editor.edit(array, np.arange(len(texts)))
    assert again.texts == edit.texts and again.columns == edit.columns


def is_subsequence(few: list[str], many: list[str]) -> bool:
    rest = iter(many)
    return all(character in rest for character in few)


# ---- real sets and documents ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Finder:
    return finder_of([str(shared_data / "eval" / name) for name in ("gsm8k_test.jsonl", "lambada_test.jsonl", "HumanEval.jsonl.gz")])


def finder_of(sets: list[str]) -> Finder:
    config = ContaminationConfig.model_validate({"sets": sets})
    return Finder.make(build_index(read_passages(set_files(config.set_configs())), config), config)


def found_in(finder: Finder, texts: list[str]) -> list[set[tuple[str, int]]]:
    found: list[set[tuple[str, int]]] = [set() for _ in texts]
    for document, passage, *_ in finder.find(pa.array(texts, pa.large_string())):
        found[document].add((finder.index.sets[finder.index.set_of[passage]], int(finder.index.number[passage])))
    return found


def test_nothing_is_found_in_wikipedia_and_c4(real: Finder, shared_data: Path) -> None:
    text = shared_data / "text"
    texts = (text / "wikitext2_valid.txt").read_text().split("\n = ")
    texts += [json.loads(line)["text"] for line in (text / "c4_demo.jsonl").read_text().splitlines()]
    assert sum(map(len, texts)) > 1_000_000
    assert not any(found_in(real, texts))


def test_nor_is_any_of_some_of_these_sentences_in_c4_though_each_is_found_where_it_stands(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "eval" / "blimp.zip") as archive:
        lines = [line for name in archive.namelist() if name.endswith(".jsonl") for line in archive.read(name).splitlines()[::50]]
    (tmp_path / "blimp.jsonl").write_bytes(b"\n".join(lines))
    finder = finder_of([str(tmp_path / "blimp.jsonl")])
    pages = [json.loads(line)["text"] for line in (shared_data / "text" / "c4_demo.jsonl").read_text().splitlines()]
    assert len(lines) > 1_000 and not any(found_in(finder, pages))
    sentences = [(n, text) for n, line in enumerate(lines) if len((text := json.loads(line)["sentence_good"]).split()) >= 8]
    found = found_in(finder, [f"{pages[n % 50]} {text.upper()} {pages[n % 49]}" for n, text in sentences])
    assert len(found) > 500 and all(("blimp", n) in items for (n, _), items in zip(sentences, found, strict=True))


@pytest.mark.parametrize("name", ["gsm8k_test", "lambada_test", "HumanEval"])
def test_planted_items_are_found(real: Finder, shared_data: Path, name: str) -> None:
    file = shared_data / "eval" / {"HumanEval": "HumanEval.jsonl.gz"}.get(name, f"{name}.jsonl")
    lines = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    items = [json.loads(line) for line in lines.splitlines()]
    texts = [next(item[key] for key in ("question", "prompt", "text") if key in item) for item in items]
    step = -(-len(texts) // 400)
    same: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    for number, text in enumerate(texts):
        same.setdefault(tuple(re.findall(r"\w+", text)), set()).add((name, number))
    draw = random.Random(name)
    hosts = [json.loads(line)["text"] for line in (shared_data / "text" / "c4_demo.jsonl").read_text().splitlines()]
    words = sorted({word for host in hosts for word in re.findall(r"[a-z]+", host)})

    def recall(edit: Any) -> float:
        planted, some = [], texts[draw.randrange(step) :: step]
        for text in some:
            host = draw.choice(hosts)
            at = draw.choice([match.start() for match in re.finditer(" ", host)])
            planted.append(f"{host[:at]}\n{edit(text)}\n{host[at:]}")
        found = found_in(real, planted)
        return sum(not same[tuple(re.findall(r"\w+", t))].isdisjoint(f) for t, f in zip(some, found, strict=True)) / len(some)

    def one_word_in_ten(text: str) -> str:
        places = [match.span() for match in re.finditer(r"\w+", text)]
        for start, end in sorted(draw.sample(places, -(-len(places) // 10)), reverse=True):
            text = text[:start] + draw.choice(words) + text[end:]
        return text

    assert recall(lambda text: text) == 1
    assert recall(str.upper) == 1
    assert recall(lambda text: re.sub(r"[^\w\s]", " ", text)) >= 0.995
    assert recall(lambda text: re.sub(r"[^\w\s]", "", text)) >= 0.97
    assert recall(one_word_in_ten) >= 0.98
    assert recall(lambda text: one_word_in_ten(re.sub(r"[^\w\s]", " ", text).lower())) >= 0.98
