"""Tests `classifier train --labels`: the texts of a run, with the labels that people gave them."""

import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from inline_run import run_inline
from trained_classifier import make_posts

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.examples import gather_examples
from corpusmill.filters.classifier.from_options import spec_of_labels
from corpusmill.pipeline.labels import DocumentLabel, LabelFile, hash_of, texts_of
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
RECIPE = "ingest: {}\nfilter: {steps: [gopher_repetition]}\n"


def run_of(folder: Path, texts: list[str]) -> tuple[Path, list[tuple[str, str]]]:
    """Makes a run of these texts; returns its folder, and id and text of each of its documents."""
    folder.mkdir(exist_ok=True)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = run_inline(folder, RECIPE, folder / "texts.jsonl")
    table = read_table(Storage(str(run)), "ingest/data/part-00000.parquet", ["id", "text"])
    return run, list(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def label(run: Path, labels: list[tuple[str, str, str]], who: str = "anna") -> None:
    """Gives labels: (id, text, label)."""
    given = [DocumentLabel(id_, name, who, NOON, hash_of(text)) for id_, text, name in labels]
    LabelFile(Storage(str(run))).change(lambda before: before.with_labels(given))


def test_the_examples_of_a_labelled_run(tmp_path: Path) -> None:
    run, documents = run_of(tmp_path, [post["text"] for post in make_posts(1, 12)])
    label(run, [(id_, text, "good" if place % 2 else "bad") for place, (id_, text) in enumerate(documents[:8])])
    label(run, [(documents[1][0], documents[1][1], "bad")], "bert")  # as many votes for both
    label(run, [(documents[8][0], "an earlier text", "bad"), ("gone", "another", "good")])
    spec, sentence = spec_of_labels([str(run)], None, {"name": "quality"})
    assert sentence == "label good is yes to the label good, bad is no"
    found = gather_examples(spec.sources)
    (report,) = found.sources
    assert (report.rows, report.empty, report.unanswered, report.examples) == (10, 2, 1, 7)
    expected = {text: int(place % 2) for place, (_, text) in enumerate(documents[:8]) if place != 1}
    assert dict(zip(found.table["text"].to_pylist(), found.table["good"].to_pylist(), strict=True)) == expected
    label(run, [(*documents[9], "so-so")])
    spec, sentence = spec_of_labels([str(run)], None, {"name": "quality"})
    assert spec.labels == ("bad", "good", "so-so") and sentence == "each value of label is a label: bad, good, so-so"
    assert spec_of_labels([str(run)], "so-so", {"name": "quality"})[0].labels == ("so-so",)


def test_the_command(tmp_path: Path, corpusmill: Callable) -> None:
    posts = {post["text"]: post["rude"] for post in make_posts(2, 300)}
    run, documents = run_of(tmp_path, list(posts))
    label(run, [(id_, text, "rude" if posts[text] else "kind") for id_, text in documents])
    label(run, [(documents[0][0], "an earlier text", "rude")], "bert")
    command = ("classifier", "train", "--labels", run, "--output", tmp_path / "model", "--no-compress")
    code, _, error = corpusmill(*command)
    assert code == 0 and "run: 1 of 301 labelled texts have changed, so they are left out" in error
    card = read_classifier(tmp_path / "model").card
    assert card["spec"]["sources"] == [
        {"name": "run", "format": "auto", "stage": "ingest", "labelled": "run", "text_column": "text", "repeat": 1.0,
         "files": [], "failed": [], "label_columns": {}, "answers": {}, "weak": {},
         "values": {"kind": {"rude": 0}, "rude": {"rude": 1}}},
    ]  # fmt: skip
    assert card["data"]["sources"][0]["files"][0]["name"] == "labels.parquet" and set(card["split"]) == {"train", "validation", "test"}
    assert card["labels"]["rude"]["test"]["roc_auc"]["value"] > 0.75


def test_what_is_refused(tmp_path: Path, corpusmill: Callable) -> None:
    run, documents = run_of(tmp_path, [post["text"] for post in make_posts(1, 12)])
    for labels, sentence in (
        ([], "nobody has labelled a document of this run"),
        ([(*documents[0], "good")], "all rows have the value good in 'label'; a classifier needs two classes"),
    ):
        label(run, labels)
        code, _, error = corpusmill("classifier", "train", "--labels", run, "--output", tmp_path / "model")
        assert code == 2 and sentence in error
    assert "no such run" in corpusmill("classifier", "train", "--labels", tmp_path / "no", "--output", tmp_path / "model")[2]
    (run / "labels.parquet").write_bytes(b"damaged")
    assert "not a readable Parquet file" in corpusmill("classifier", "train", "--labels", run, "--output", tmp_path / "model")[2]


@pytest.mark.long
def test_two_hundred_labels_of_a_real_run(tmp_path: Path, shared_data: Path, corpusmill: Callable) -> None:
    """A script labels by a rule that no filter of the run uses, one label in ten wrongly. The classifier agrees with held-out labels."""
    texts = [json.loads(line)["text"] for line in (shared_data / "text/c4_demo.jsonl").open()]
    for path in sorted((shared_data / "lid").glob("*.txt")):
        lines = path.read_text().splitlines()
        texts += ["\n".join(lines[begin : begin + 10]) for begin in range(0, 40, 10)]
    run, documents = run_of(tmp_path, texts)
    draw = random.Random(1)
    chosen = draw.sample(sorted(documents), 400)

    def english(text: str) -> bool:
        words = re.findall(r"\w+", text.lower())
        return sum(word in ("the", "of", "and", "to", "in") for word in words) > 0.08 * len(words)

    named = [(id_, text, "english" if english(text) != (draw.random() < 0.1) else "other") for id_, text in chosen]
    label(run, named[:200])
    code, _, error = corpusmill("classifier", "train", "--labels", run, "--output", tmp_path / "model", "--positive-label", "english")
    assert code == 0, error
    with (tmp_path / "held_out.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text, "label": name}) + "\n" for _, text, name in named[200:])
    evaluate = ("classifier", "evaluate", tmp_path / "model", tmp_path / "held_out.jsonl", "--positive-label", "english", "--json")
    found = json.loads(corpusmill(*evaluate)[1])["labels"]["english"]
    print(json.dumps({name: found[name] for name in ("roc_auc", "at_threshold") if name in found}))
    assert found["roc_auc"]["value"] > 0.75


def test_texts_of_all_stages(tmp_path: Path) -> None:
    run, documents = run_of(tmp_path, [post["text"] for post in make_posts(1, 12)])
    assert list(dict.fromkeys(texts_of(Storage(str(run)), [documents[1][0], "nobody"]))) == [documents[1]]
