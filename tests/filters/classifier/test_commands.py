"""Tests `corpusmill classifier evaluate`, and the figures of the documentation."""

import json
import re
from pathlib import Path

import pytest
from labelled_texts import write_jsonl
from trained_classifier import make_posts, write_classifier

from corpusmill.filters.classifier.spec import read_spec

POSTS = make_posts(2, 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "posts", make_posts(1, 300))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{**post, "name": "rude" if post["rude"] else "spam", "said": "ja" if post["rude"] else "nein"} for post in POSTS]
    write_jsonl(tmp_path / "yes.jsonl", [{"text": row["text"]} for row in rows if row["rude"]])
    write_jsonl(tmp_path / "no.jsonl", [{"text": row["text"]} for row in rows if not row["rude"]])
    return write_jsonl(tmp_path / "posts.jsonl", rows)


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def test_all_ways_to_name_the_answers_say_the_same(corpusmill, folder: Path, data: Path) -> None:
    (data.parent / "spec.yaml").write_text("labels: [rude]\nsources:\n  - {files: [posts.jsonl], label_columns: {rude: rude}}\n")
    ways = [
        (data, *sets("sources.0.label_columns={rude: rude, spam: spam}")),
        (data, *sets("sources.0.label_column=name")),
        (data, *sets("sources.0.label_column=rude", "labels=[rude]")),
        (data, *sets("sources.0.label_column=said", "sources.0.positive=ja", "labels=[rude]")),
        (data.parent / "yes.jsonl", data.parent / "no.jsonl", *sets("sources.0.answers={rude: 1}", "sources.1.answers={rude: 0}")),
        (data.parent / "spec.yaml",),
    ]
    found = []
    for way in ways:
        code, out, error = corpusmill("classifier", "evaluate", folder, *way, "--json")
        assert code == 0, error
        found.append(json.loads(out)["labels"]["rude"]["roc_auc"]["value"])
    assert len(set(found)) == 1 and found[0] > 0.8
    code, out, _ = corpusmill("classifier", "evaluate", folder, *ways[0])
    assert code == 0 and "rude: yes from 0.4 on" in out.decode() and "spam: yes from 0.4 on" in out.decode()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["posts.jsonl", *sets("labels=[nice]")], "the classifier has no label 'nice' (it has rude, spam)"),
        (["posts.jsonl", *sets("sources.0.label_column=said")], "the label 'nein' in 'said' is unknown (known are rude, spam)"),
        (["posts.jsonl", *sets("sources.7.positive=ja")], "'7' is not an index of a list of length 1"),
    ],
)
def test_bad_arguments_are_one_sentence(corpusmill, folder, data, monkeypatch, arguments, sentence) -> None:
    monkeypatch.chdir(data.parent)
    code, out, error = corpusmill("classifier", "evaluate", folder, *arguments)
    assert (code, out) == (2, b"")
    assert sentence in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_model_that_is_another_one(corpusmill, folder: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "rude.bin").write_bytes((folder / "spam.bin").read_bytes())
    code, _, error = corpusmill("classifier", "evaluate", other, data)
    assert code == 2 and "not the model that the classifier was made with" in error


# ---- Figures in docs/stages/classifiers.md and the built-in classifier's card are those printed by benchmarks/classifiers.py.

ROOT = Path(__file__).resolve().parents[3]
PRINTED = ROOT / "benchmarks/classifiers.txt"


def printed() -> set[tuple[str, str, str]]:
    """Returns AUCs with the ends of their intervals, as the documentation writes them."""
    rows = re.findall(r" (0\.\d{3}) \[(0\.\d{3}) (0\.\d{3})\]", PRINTED.read_text("utf-8"))
    return {tuple(number.removeprefix("0") for number in row) for row in rows}


def section(title: str) -> str:
    text = (ROOT / "docs/stages/classifiers.md").read_text("utf-8")
    return text[text.index(f"\n{title}\n") :].split("\n### Windows")[0]


@pytest.mark.parametrize("title", ["## The built-in classifier", "### Toxicity from judged text"])
def test_the_documentation(title: str) -> None:
    found = re.findall(r"(?<!\d)(\.\d{3}) \((\.\d{3}) to (\.\d{3})\)", section(title))
    assert len(found) >= 2 and [each for each in found if each not in printed()] == []


def test_the_card_of_quality() -> None:
    (row,) = re.findall(r"every candidate: nested .*? (0\.\d{3}) \[(0\.\d{3}) (0\.\d{3})\]", PRINTED.read_text("utf-8"))
    auc, low, high = (f"{float(number):.2f}".removeprefix("0") for number in row)
    said = f"{auc} ({low} to {high})"
    assert said in " ".join(read_spec(["quality"]).limits) and said in section("## The built-in classifier")
