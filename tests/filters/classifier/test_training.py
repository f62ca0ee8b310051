"""Tests the way from labelled files to a classifier's folder and a recipe, or to one sentence."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inline_run import run_inline
from labelled_texts import notes, write_jsonl, write_notes
from trained_classifier import make_posts

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.score import Scorer
from corpusmill.filters.labels import DocumentLabel, LabelFile, hash_of
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage

# ---- `corpusmill classifier train`, from files to a folder.

#: Arguments that train a small model in a moment.
SMALL = {"dim": 8, "epoch": 3, "bucket": 2000, "minCount": 1}
EXACT = ("--set", "compress=false")


def write_spec(path: Path, **spec: object) -> Path:
    path.write_text(json.dumps({"fasttext": SMALL, "compress": False, **spec}))  # JSON is YAML
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.long
def test_two_runs_in_different_folders_give_the_same_bytes(tmp_path):
    """Compares the whole folder: model, classifier.json and card; from data at another place, in another process."""
    for name in ("one", "other place"):
        (tmp_path / name).mkdir()
        write_notes(tmp_path / name / "notes.jsonl", notes(600, 1))
        command = [sys.executable, "-m", "corpusmill", "classifier", "train", "notes.jsonl", "--output", "kitchen"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / name, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "Progress" not in done.stderr and "Number of words" not in done.stderr
    first, second = (content(tmp_path / name / "kitchen") for name in ("one", "other place"))
    assert sorted(first) == ["README.md", "classifier.json", "kitchen.ftz", "training.hashes"]
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_the_model_is_what_fasttext_reads_and_tells_the_kinds_apart(tmp_path, corpusmill):
    import fasttext

    from corpusmill.filters.classifier.forms import write_form

    rows = [{"text": text, "label": "kitchen" if yes else "workshop"} for text, yes in notes(400, 1)]
    data, output = write_jsonl(tmp_path / "notes.jsonl.gz", rows), tmp_path / "kitchen"
    code, out, err = corpusmill("classifier", "train", data, "--set", "sources.0.positive=kitchen", "--output", output, *EXACT)
    assert (code, out) == (0, b""), err
    classifier = read_classifier(tmp_path / "kitchen")
    assert [head.file for head in classifier.heads] == ["kitchen.bin"]
    fresh = notes(300, 77)
    text, answer = pa.array([text for text, _ in fresh], pa.large_string()), np.array([yes for _, yes in fresh])
    (score,) = Scorer(tmp_path / "kitchen", classifier).score(text)
    assert ((score >= classifier.heads[0].threshold) == answer).mean() > 0.95
    model = fasttext.load_model(str(tmp_path / "kitchen" / "kitchen.bin"))
    assert sorted(model.labels) == ["__label__no", "__label__yes"]
    labels, probabilities = model.predict(write_form("words", text).to_pylist(), k=-1)
    raw = [dict(zip(names, values))["__label__yes"] for names, values in zip(labels, probabilities)]
    expected = classifier.heads[0].calibration.apply(np.clip(raw, 0, 1))
    np.testing.assert_allclose(score, expected, atol=1e-4)


def test_a_spec_with_partial_labels_trains_a_model_a_label(tmp_path, corpusmill):
    """Four sources: a value for a label, a column for a label with unknown answers, names of labels, and texts that are all no."""
    rows = {name: notes(300, seed, manner) for name, seed, manner in (("a", 3, ""), ("b", 4, "er"), ("c", 5, ""), ("d", 6, "s"))}
    write_jsonl(tmp_path / "a.jsonl", [{"text": text, "class": "kitchen" if yes else "other"} for text, yes in rows["a"]])
    unknown = [None, *range(len(rows["b"]))]
    write_jsonl(tmp_path / "b.jsonl", [{"text": t, "k": y, "w": None if n is None else 1 - y} for n, (t, y) in zip(unknown, rows["b"])])
    write_jsonl(tmp_path / "c.jsonl", [{"text": text, "tags": "kitchen" if yes else "workshop"} for text, yes in rows["c"]])
    (tmp_path / "d").mkdir()
    for part in range(2):
        pq.write_table(pa.table({"body": [f"{text} street" for text, _ in rows["d"][part::2]]}), tmp_path / f"d/part-{part}.parquet")
    spec = write_spec(
        tmp_path / "notes.yaml",
        labels=["kitchen", "workshop"],
        precision=0.6,
        licence="CC0-1.0",
        sources=[
            {"files": ["a.jsonl"], "label_column": "class", "values": {"kitchen": {"kitchen": 1, "workshop": 0}, "other": {"kitchen": 0}}},
            {"files": ["b.jsonl"], "label_columns": {"kitchen": "k", "workshop": "w"}, "repeat": 2, "licence": "MIT"},
            {"files": ["c.jsonl"], "label_column": "tags"},
            {"files": ["d"], "text_column": "body", "answers": {"workshop": 0}},
        ],
    )
    code, _, err = corpusmill("classifier", "train", spec, "--output", tmp_path / "model")
    assert code == 0, err
    classifier = read_classifier(tmp_path / "model")
    assert (classifier.name, [head.label for head in classifier.heads]) == ("model", ["kitchen", "workshop"])
    a, b, c, d = classifier.card["data"]["sources"]
    assert a["answers"]["workshop"]["yes"] == 0 and a["answers"]["workshop"]["no"] == a["answers"]["kitchen"]["yes"]
    assert (b["unknown"], sum(b["answers"]["workshop"].values()), sum(b["answers"]["kitchen"].values())) == (1, 299, 300)
    assert c["answers"]["kitchen"] == {"yes": c["answers"]["workshop"]["no"], "no": c["answers"]["workshop"]["yes"]}
    assert d["answers"] == {"kitchen": {"yes": 0, "no": 0}, "workshop": {"yes": 0, "no": 300}} and len(d["files"]) == 2
    facts = classifier.card["labels"]["kitchen"]
    assert facts["test"]["roc_auc"]["value"] > 0.9
    parts, trained = facts["parts"]["train"], facts["trained_on"]
    assert trained["yes"] + trained["no"] > sum(parts.values()) + 150  # b counts twice
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Licence: CC0-1.0." in card and "with a precision of 0.6 on the validation part" in card


# ---- Labels that people gave to a run's documents: exported, trained on, used in a recipe (docs/guides/labelling.md)

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


def test_labels_become_a_classifier_of_a_recipe(tmp_path: Path, corpusmill: Callable) -> None:
    posts = {post["text"]: post["rude"] for post in make_posts(2, 300)}
    run, documents = run_of(tmp_path, list(posts))
    label(run, [(id_, text, "rude" if posts[text] else "kind") for id_, text in documents])
    label(run, [(documents[0][0], "an earlier text", "rude"), (*documents[1], "so-so")], "bert")
    (tmp_path / "labels.jsonl").write_bytes(corpusmill("labels", run)[1])
    command = ("classifier", "train", tmp_path / "labels.jsonl", "--output", tmp_path / "rude", *EXACT)
    code, _, error = corpusmill(*command, "--set", "sources.0.positive=rude")
    assert code == 0 and "labels.jsonl: of 302 rows 1 have no text and 0 texts no answer" in error
    card = read_classifier(tmp_path / "rude").card
    assert card["labels"]["rude"]["test"]["roc_auc"]["value"] > 0.75
    assert card["data"]["conflicts"]["rude"] == int(posts[documents[1][1]] == 1)
    recipe = f"ingest: {{}}\nfilter: {{steps: [{{classifier: {{model: '{tmp_path}/rude', keep_where: low, threshold: own}}}}]}}\n"
    (tmp_path / "again").mkdir()
    scored = run_inline(tmp_path / "again", recipe, tmp_path / "texts.jsonl")
    report = read_table(Storage(str(scored)), "filter/report/part-00000.parquet")
    threshold = read_classifier(tmp_path / "rude").heads[0].threshold
    assert report["kept"].to_pylist() == [score is None or score < threshold for score in report["rude"].to_pylist()]
    assert 0 < sum(report["kept"].to_pylist()) < 300


# ---- Mistakes in `corpusmill classifier train`: one sentence each, exit code 2, and nothing written.

ROWS = notes(400, 1)
SOURCE = {"files": ["notes.jsonl"]}


def mistake(name: str, rows: list, words: str, **spec: object) -> object:
    """A mistake: rows of notes.jsonl, `(text, label)` or whole; options of a specification, if it needs one; words of the sentence."""
    return pytest.param([row if isinstance(row, dict) else {"text": row[0], "label": row[1]} for row in rows], spec, words, id=name)


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        mistake("one answer", [(text, 1) for text, _ in ROWS], "400 examples say yes and 0 say no"),
        mistake("no answer", [(text, None) for text, _ in ROWS], "no text has an answer to model"),
        mistake("both answers", [(text, answer) for text, _ in ROWS for answer in (0, 1)], "of 0 different examples with the answer yes"),
        mistake("too few", ROWS[:30], "give more examples"),
        mistake("no label", [ROWS[0], {"text": "b"}], "notes.jsonl: row 2: has no column 'label'"),
        mistake("no text", [ROWS[0], (7, 0)], "notes.jsonl: row 2: 'text' is no text"),
        mistake("unknown label", [ROWS[0], ("b", 2)], "notes.jsonl: row 2: the label 2 in 'label' is unknown"),
        mistake("object as label", [ROWS[0], ("b", {"x": 1})], "row 2: the label {'x': 1} in 'label' is unknown"),
        mistake("other label", ROWS, "spec.yaml: .*notes.jsonl answers 'garden'", sources=[{**SOURCE, "answers": {"garden": 1}}]),
        mistake("no column", ROWS, "it is needed for values", sources=[{**SOURCE, "answers": {"model": 1}, "positive": 2}]),
        mistake("two labels", ROWS, "but there are several labels", sources=[{**SOURCE, "positive": 2}], labels=["a", "b"]),
        mistake("same name", ROWS, "two have the name notes.jsonl", sources=[SOURCE, SOURCE]),
        mistake("bad name", ROWS, "'a/b' is no name for a label", sources=[SOURCE], labels=["a/b"]),
        mistake("calibration", ROWS, "they need calibration: platt", sources=[SOURCE], length=1, calibration="none"),
        mistake("unknown key", ROWS, "fasttext.epohc: unknown key", sources=[SOURCE], fasttext={"epohc": 3}),
        mistake("no sources", ROWS, "sources: field required", labels=["a"]),
        mistake("not numbers", ROWS, "lower fasttext.lr", sources=[SOURCE], fasttext={"lr": 1e30, "bucket": 1000}),
        mistake(
            "too small to compress", ROWS, "train with compress: false", sources=[SOURCE], compress=True,
            fasttext={"minn": 0, "maxn": 0, "wordNgrams": 1},
        ),
    ],
)  # fmt: skip
def test_examples_and_specifications_that_do_not_fit(refused, tmp_path, rows, options, words):
    data = write_jsonl(tmp_path / "notes.jsonl", rows)
    (tmp_path / "spec.yaml").write_text(json.dumps({"compress": False, **options}))
    assert re.search(words, refused(tmp_path / "spec.yaml" if options else data))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "no such file"),
        ("a.parquet", b"PAR1 and no more", "not a readable Parquet file"),
        ("notes.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}' * 99, mtime=0)[:-9], "the compressed file is cut off"),
        ("page.html", b"<p>no example</p>", ":1: not JSON"),
        ("spec.yaml", None, "can't be read"),
        ("spec.yaml", b"labels: [a\nsources", ":2: not valid YAML"),
        ("spec.yaml", b"- a", "a mapping of a training's options"),
    ],
)
def test_files_that_cannot_be_read(refused, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    said = refused(tmp_path / name)
    assert said.startswith(f"{tmp_path / name}:") and words in said


@pytest.fixture
def refused(tmp_path, corpusmill):
    """Runs the command, which must be refused; returns the sentence."""

    def run(*arguments: object) -> str:
        code, out, err = corpusmill("classifier", "train", "--output", tmp_path / "model", *arguments)
        assert (code, out) == (2, b"")
        last = err.strip().splitlines()[-1]
        assert last.startswith("corpusmill: ") and last.endswith(".") and "Traceback" not in err
        assert not (tmp_path / "model" / "classifier.json").exists() and not list(tmp_path.glob(".tmp-*"))
        return last.removeprefix("corpusmill: ")

    return run


def test_an_output_that_is_there_already(tmp_path, corpusmill):
    path = write_notes(tmp_path / "notes.jsonl", ROWS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output in (path, tmp_path / "mine"):
        code, _, err = corpusmill("classifier", "train", path, "--output", output)
        assert code == 2 and f"{output}: is there already" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
