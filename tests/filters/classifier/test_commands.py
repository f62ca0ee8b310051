"""Tests the commands, and the figures of the documentation."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from labelled_texts import write_jsonl
from trained_classifier import make_posts, write_classifier

from corpusmill.filters.classifier.builtin import builtin_spec

# ---- `corpusmill classifier evaluate` and `score`, and their bad input: one sentence, exit code 2, nothing written.

POSTS = make_posts(2, 200)
SPEC = {"sources": [{"label_column": "kind", "values": {"2": {"rude": 1}, "0": {"rude": 0}, "1": {"rude": 0}}}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "posts", make_posts(1, 300), {"spec": SPEC})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {
            **post,
            "kind": 2 if post["rude"] else post["spam"],
            "name": "rude" if post["rude"] else "spam",
            "said": "ja" if post["rude"] else "nein",
        }
        for post in POSTS
    ]
    write_jsonl(tmp_path / "yes.jsonl", [{"text": row["text"]} for row in rows if row["rude"]])
    write_jsonl(tmp_path / "no.jsonl", [{"text": row["text"]} for row in rows if not row["rude"]])
    return write_jsonl(tmp_path / "posts.jsonl", rows)


def rude_auc(out: bytes) -> float:
    return json.loads(out)["labels"]["rude"]["roc_auc"]["value"]


def test_all_ways_to_name_the_answers_say_the_same(corpusmill, folder: Path, data: Path) -> None:
    rest = ("--json", "--resamples", "20")
    evaluate = ("classifier", "evaluate", folder)
    (data.parent / "spec.yaml").write_text(
        "name: posts\nlabels: [rude]\nsources:\n  - {files: [posts.jsonl], label_columns: {rude: rude}}\n"
    )
    ways = [
        (data, "--label-column", "rude=rude"),
        (data, "--label-column", "kind"),
        (data, "--label-column", "name"),
        (data, "--label-column", "rude", "--label", "rude"),
        (data, "--label-column", "said", "--positive-label", "ja", "--label", "rude"),
        ("--positive", data.parent / "yes.jsonl", "--negative", data.parent / "no.jsonl", "--label", "rude"),
        ("--spec", data.parent / "spec.yaml"),
    ]
    found = []
    for way in ways:
        code, out, error = corpusmill(*evaluate, *way, *rest)
        assert code == 0, error
        found.append(rude_auc(out))
    assert len(set(found)) == 1 and found[0] > 0.8


def test_several_labels_at_once(corpusmill, folder: Path, data: Path) -> None:
    columns = ("--label-column", "rude=rude", "--label-column", "spam=spam")
    code, out, _ = corpusmill("classifier", "evaluate", folder, data, *columns, "--resamples", 20)
    text = out.decode()
    assert code == 0 and "rude: yes from 0.4 on" in text and "spam: yes from 0.4 on" in text


def test_score(corpusmill, folder: Path, data: Path, tmp_path: Path) -> None:
    code, out, _ = corpusmill("classifier", "score", folder, data, "--output", tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert code == 0
    assert table["id"].to_pylist() == [post["id"] for post in POSTS]
    assert (
        f"200 texts, 0 of them with nothing that the classifier knows; answered yes: rude {sum(table['rude'].to_pylist())}," in out.decode()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give labelled files, or --positive and --negative, or --spec"),
        (("posts.jsonl", "--label-column", "nice=rude"), "posts has no label 'nice' (it has rude, spam)"),
        (("posts.jsonl", "--label-column", "said"), "the label 'nein' is unknown (known are rude, spam)"),
        (("posts.jsonl",), "has no column 'label' (it has id, text, rude, spam, kind, name, said)"),
        (
            ("posts.jsonl", "--label-column", "said", "--positive-label", "ja"),
            "posts has several labels; say which with --label (rude, spam)",
        ),
        (("posts.jsonl", "--label-column", "said", "--positive-label", "oui", "--label", "rude"), "no row has that value in 'said'"),
        (("--spec", "x.yaml", "--label", "rude"), "--label has no meaning here"),
        (("missing.jsonl", "--label-column", "rude"), "missing.jsonl"),
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
    code, _, error = corpusmill("classifier", "evaluate", other, data, "--label-column", "rude=rude")
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
    assert said in " ".join(builtin_spec("quality").limits) and said in section("## The built-in classifier")
