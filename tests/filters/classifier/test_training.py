"""Tests the way from labelled files to a classifier's folder, or to one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_texts import notes, write_jsonl, write_notes
from tiny_crawl import make_rows

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.score import Scorer, load_heads

# ---- `corpusmill classifier train`, from files to a folder.

#: Arguments that train a small model in a moment.
SMALL = {"dim": 8, "epoch": 3, "bucket": 2000, "minCount": 1}


def train(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corpusmill", "classifier", "train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def write_spec(path: Path, **spec: object) -> Path:
    path.write_text(json.dumps({"fasttext": SMALL, "compress": False, **spec}))  # JSON is YAML
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.long
def test_two_runs_in_different_folders_give_the_same_bytes(tmp_path):
    """Compares the whole folder: model, classifier.json and card; from compressed data at another place, in another process."""
    for name in ("one", "other place"):
        (tmp_path / name).mkdir()
        write_notes(tmp_path / name / "notes.jsonl", notes(600, 1))
        done = train("--data", "notes.jsonl", "--name", "kitchen", "--output", "model", cwd=tmp_path / name)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "label 1 is yes to the label kitchen, 0 is no" in done.stderr
        assert "Progress" not in done.stderr and "Number of words" not in done.stderr
    first, second = (content(tmp_path / name / "model") for name in ("one", "other place"))
    assert sorted(first) == ["README.md", "classifier.json", "kitchen.ftz", "training.hashes"]
    assert first == second
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_the_model_is_what_fasttext_reads_and_tells_the_kinds_apart(tmp_path, corpusmill):
    import fasttext

    from corpusmill.filters.classifier.forms import write_form

    rows = [{"text": text, "label": "kitchen" if yes else "workshop"} for text, yes in notes(400, 1)]
    data, output = write_jsonl(tmp_path / "notes.jsonl.gz", rows), tmp_path / "kitchen"
    code, out, err = corpusmill("classifier", "train", "--data", data, "--positive-label", "kitchen", "--output", output, "--no-compress")
    assert (code, out) == (0, b""), err
    classifier = read_classifier(tmp_path / "kitchen")
    assert [head.file for head in classifier.heads] == ["kitchen.bin"]
    fresh = notes(300, 77)
    text, answer = pa.array([text for text, _ in fresh], pa.large_string()), np.array([yes for _, yes in fresh])
    (found,) = Scorer(load_heads(tmp_path / "kitchen", classifier)).score(text)
    assert ((found.score >= classifier.heads[0].threshold) == answer).mean() > 0.95
    model = fasttext.load_model(str(tmp_path / "kitchen" / "kitchen.bin"))
    assert sorted(model.labels) == ["__label__no", "__label__yes"]
    labels, probabilities = model.predict(write_form("words", text).to_pylist(), k=-1)
    raw = [dict(zip(names, values))["__label__yes"] for names, values in zip(labels, probabilities)]
    np.testing.assert_allclose(found.raw, np.clip(raw, 0, 1), atol=1e-5)


def test_positive_and_negative_files_of_every_kind(tmp_path, corpusmill):
    rows = notes(400, 2)
    positive, negative = ([text for text, yes in rows if yes == wanted] for wanted in (1, 0))
    (tmp_path / "texts" / "below").mkdir(parents=True)
    for number, text in enumerate(positive[:100]):
        (tmp_path / "texts" / "below" / f"{number}.txt").write_text(text.replace(" ", "\n", 1))
    (tmp_path / "lines.txt").write_text("\n".join(positive[100:]) + "\n\n")
    pq.write_table(pa.table({"body": negative[:100]}), tmp_path / "part-0.parquet")
    pq.write_table(pa.table({"body": negative[100:]}), tmp_path / "part-1.parquet")
    code, _, err = corpusmill(
        "classifier", "train", "--positive", tmp_path / "texts", tmp_path / "lines.txt", "--negative", f"{tmp_path}/part-*.parquet",
        "--text-column", "body", "--output", tmp_path / "kitchen", "--no-compress", "--calibration", "isotonic", "--licence", "CC0-1.0",
    )  # fmt: skip
    assert code == 0, err
    classifier = read_classifier(tmp_path / "kitchen")
    sources = classifier.card["data"]["sources"]
    counts = {source["name"]: (source["examples"], source["answers"]["kitchen"], len(source["files"])) for source in sources}
    assert counts == {
        "texts": (100, {"yes": 100, "no": 0}, 100),
        "lines.txt": (len(positive) - 100, {"yes": len(positive) - 100, "no": 0}, 1),
        "part-*.parquet": (len(negative), {"yes": 0, "no": len(negative)}, 2),
    }
    assert classifier.heads[0].calibration.method == "isotonic"
    assert classifier.card["labels"]["kitchen"]["threshold_on"]["what"] == "the validation part"  # no source has both answers
    assert "Licence: CC0-1.0." in (tmp_path / "kitchen" / "README.md").read_text()


@pytest.fixture
def spec_of_three(tmp_path):
    """Returns a spec of three sources: one value for a label, one column for a label with unknown answers, and lists of labels."""
    rows = {name: notes(300, seed, manner) for name, seed, manner in (("a", 3, ""), ("b", 4, "er"), ("c", 5, ""))}
    write_jsonl(tmp_path / "a.jsonl", [{"text": text, "class": "kitchen" if yes else "other"} for text, yes in rows["a"]])
    unknown = [None, *range(len(rows["b"]))]
    write_jsonl(tmp_path / "b.jsonl", [{"text": t, "k": y, "w": None if n is None else 1 - y} for n, (t, y) in zip(unknown, rows["b"])])
    write_jsonl(tmp_path / "c.jsonl", [{"text": text, "tags": ["kitchen"] if yes else ["workshop"]} for text, yes in rows["c"]])
    return write_spec(
        tmp_path / "notes.yaml",
        labels=["kitchen", "workshop"],
        sources=[
            {"files": ["a.jsonl"], "label_column": "class", "values": {"kitchen": {"kitchen": 1, "workshop": 0}, "other": {"kitchen": 0}}},
            {"files": ["b.jsonl"], "label_columns": {"kitchen": "k", "workshop": "w"}, "repeat": 2, "licence": "MIT"},
            {"files": ["c.jsonl"], "label_column": "tags"},
        ],
    )


def test_a_spec_with_partial_labels_trains_a_model_a_label(spec_of_three, tmp_path, corpusmill):
    code, _, err = corpusmill("classifier", "train", "--spec", spec_of_three, "--output", tmp_path / "model")
    assert code == 0, err
    classifier = read_classifier(tmp_path / "model")
    assert (classifier.name, [head.label for head in classifier.heads]) == ("notes", ["kitchen", "workshop"])
    a, b, c = classifier.card["data"]["sources"]
    assert a["answers"]["workshop"]["yes"] == 0 and a["answers"]["workshop"]["no"] == a["answers"]["kitchen"]["yes"]
    assert (b["unknown"], sum(b["answers"]["workshop"].values()), sum(b["answers"]["kitchen"].values())) == (1, 299, 300)
    assert c["answers"]["kitchen"] == {"yes": c["answers"]["workshop"]["no"], "no": c["answers"]["workshop"]["yes"]}
    on = {label: facts["threshold_on"] for label, facts in classifier.card["labels"].items()}
    assert on["kitchen"]["sources"] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert on["workshop"]["sources"] == ["b.jsonl", "c.jsonl"]  # in a all answers to it are no
    assert on["kitchen"]["what"] == "the validation part and sources left out in turn"
    rows = classifier.card["labels"]["kitchen"]
    assert list(rows["unseen"]["by_source"]) == ["a.jsonl", "b.jsonl", "c.jsonl"] and rows["calibrated_on"]["what"] == "the validation part"
    assert rows["unseen"]["by_source"]["c.jsonl"]["roc_auc"]["value"] > 0.95  # in a the words are the same
    parts, trained = rows["parts"]["train"], rows["trained_on"]
    assert trained["yes"] + trained["no"] > sum(parts.values()) + 150  # b counts twice


def test_training_again_with_what_autotune_found_gives_the_same_models(tmp_path, corpusmill):
    write_notes(tmp_path / "one.jsonl", notes(300, 6))
    spec = {"labels": ["kitchen"], "sources": [{"files": ["one.jsonl"], "label_column": "label"}]}
    tuned = write_spec(tmp_path / "tuned.yaml", **spec)
    assert corpusmill("classifier", "train", "--spec", tuned, "--autotune", "1", "--output", tmp_path / "first")[0] == 0
    card = read_classifier(tmp_path / "first").card
    found = card["labels"]["kitchen"]["arguments"]
    assert card["training"]["autotune"] == 1 and found["minCount"] == SMALL["minCount"]
    again = write_spec(tmp_path / "again.yaml", **{**spec, "fasttext": found})
    assert corpusmill("classifier", "train", "--spec", again, "--output", tmp_path / "second")[0] == 0
    first, second = (read_classifier(tmp_path / name) for name in ("first", "second"))
    assert first.heads == second.heads
    assert (tmp_path / "first" / "kitchen.bin").read_bytes() == (tmp_path / "second" / "kitchen.bin").read_bytes()


def test_a_threshold_for_sources_that_were_left_out(tmp_path, corpusmill):
    for name, seed, manner in (("a", 11, ""), ("b", 12, "ing")):
        write_notes(tmp_path / f"{name}.jsonl", notes(300, seed, manner))
    sources = [{"files": [f"{name}.jsonl"], "label_column": "label"} for name in "ab"]
    path = write_spec(tmp_path / "unseen.yaml", labels=["kitchen"], sources=sources, threshold_on="unseen_source")
    assert corpusmill("classifier", "train", "--spec", path, "--output", tmp_path / "model")[0] == 0
    facts = read_classifier(tmp_path / "model").card["labels"]["kitchen"]
    assert (facts["threshold_on"]["what"], facts["threshold_on"]["sources"]) == ("sources left out in turn", ["a.jsonl", "b.jsonl"])
    assert list(facts["unseen"]["by_source"]) == ["a.jsonl", "b.jsonl"]


@pytest.mark.long
def test_a_run_against_reference_texts(tmp_path, corpusmill):
    """Trains Python's documentation as a run against notes, from the command line."""
    more = "ast codecs collections decimal enum inspect io ipaddress optparse os shutil socket types urllib.parse weakref xml.dom"
    make_rows(tmp_path / "rows.jsonl", more.split())
    (tmp_path / "recipe.yaml").write_text("ingest: {}\n")
    assert corpusmill("run", tmp_path / "recipe.yaml", tmp_path / "rows.jsonl", "--output", tmp_path / "run", "--engine", "inline")[0] == 0
    write_notes(tmp_path / "notes.jsonl", notes(100, 1))
    command = ("--positive", tmp_path / "notes.jsonl", "--negative", tmp_path / "run", "--no-compress", "--output", tmp_path / "quality")
    code, _, err = corpusmill("classifier", "train", *command)
    assert code == 0, err
    classifier = read_classifier(tmp_path / "quality")
    reference, run = classifier.card["data"]["sources"]
    assert (run["name"], run["answers"]["quality"]["yes"], reference["answers"]["quality"]["no"]) == ("run", 0, 0)
    assert run["files"][0]["name"].startswith("ingest/data/")
    assert classifier.card["labels"]["quality"]["test"]["roc_auc"]["value"] > 0.99


def test_more_than_two_values_are_a_label_each_and_lists_are_many(tmp_path, corpusmill):
    rows = notes(500, 8)
    kinds = [("stew" if number % 3 == 0 else "Cake & co.") if yes else "plank" for number, (_, yes) in enumerate(rows)]
    write_jsonl(tmp_path / "one.jsonl", [{"text": f"{kind} {text}", "kind": kind} for kind, (text, _) in zip(kinds, rows)])
    write_jsonl(
        tmp_path / "many.jsonl",
        [{"text": f"{kind} {text}", "kind": [kind, *(["food"] if yes else [])]} for kind, (text, yes) in zip(kinds, rows)],
    )
    command = ("classifier", "train", "--no-compress", "--label-column", "kind", "--data")
    assert corpusmill(*command, tmp_path / "one.jsonl", "--output", tmp_path / "one")[0] == 0
    one = read_classifier(tmp_path / "one")
    assert [head.label for head in one.heads] == ["Cake_co", "plank", "stew"]
    (source,) = one.card["data"]["sources"]
    assert {label: found["yes"] for label, found in source["answers"].items()} == {
        "Cake_co": kinds.count("Cake & co."), "plank": kinds.count("plank"), "stew": kinds.count("stew")
    }  # fmt: skip
    assert corpusmill(*command, tmp_path / "many.jsonl", "--output", tmp_path / "many")[0] == 0
    (source,) = read_classifier(tmp_path / "many").card["data"]["sources"]
    assert source["answers"]["food"] == {"yes": 500 - kinds.count("plank"), "no": kinds.count("plank")}


def test_an_earlier_classifier_is_replaced_on_demand_alone(tmp_path, corpusmill):
    write_notes(tmp_path / "notes.jsonl", notes(400, 1))
    command = ("classifier", "train", "--data", tmp_path / "notes.jsonl", "--output", tmp_path / "model", "--no-compress")
    assert corpusmill(*command)[0] == 0
    before = content(tmp_path / "model")
    assert corpusmill(*command)[0] == 2
    assert content(tmp_path / "model") == before
    assert corpusmill(*command, "--seed", "2", "--force")[0] == 0
    assert sorted(content(tmp_path / "model")) == sorted(before) and content(tmp_path / "model") != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "notes.jsonl"]


# ---- Mistakes in `corpusmill classifier train`: one sentence each, exit code 2, and nothing written.


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


def spec(tmp_path, **options):
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({"labels": ["kitchen"], "compress": False, **options}))
    return path


def source(**options):
    return {"files": ["notes.jsonl"], "label_column": "label", **options}


ROWS = notes(400, 1)


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ([(text, 1) for text, _ in ROWS], "all rows have the value 1 in 'label'; a classifier needs two classes."),
        ([(text, None) for text, _ in ROWS], "no row has a value in 'label'."),
        ([*((text, 1) for text, _ in ROWS), ("   ", 0)], "all 400 answers to the label model are yes; a classifier needs both."),
        ([(text, answer) for text, _ in ROWS for answer in (0, 1)], "of 0 different examples with the answer yes"),
        (ROWS[:30], "which needs 5; give more examples."),
    ],
)
def test_classes_that_are_empty_or_alone_or_too_small(refused, tmp_path, rows, sentence):
    assert sentence in refused("--data", write_notes(tmp_path / "notes.jsonl", rows))


@pytest.mark.parametrize(
    "rows, place, sentence",
    [
        ([{"text": "a", "label": 1}, {"text": "b"}], 2, "has no column 'label' (it has text)."),
        ([{"text": "a", "label": 1}, {"text": 7, "label": 0}], 2, "'text' is no text (int)."),
        ([{"text": "a", "label": 1}, {"text": "b", "label": {"x": 1}}], 2, "'label' is {'x': 1}, which names no class."),
    ],
)
def test_rows_that_do_not_fit(refused, tmp_path, rows, place, sentence):
    path = write_jsonl(tmp_path / "notes.jsonl", rows)
    assert refused("--data", path) == f"{path}:{place}: {sentence}"


def test_files_that_cannot_be_read(refused, tmp_path):
    assert refused("--data", tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file or folder."
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert refused("--data", path).startswith(f"{path}: not a readable Parquet file")
    pq.write_table(pa.table({"text": [1, 2], "label": [0, 1]}), path)
    assert refused("--data", path) == f"{path}: row 1: 'text' is no text (int)."
    whole = write_notes(tmp_path / "notes.jsonl.gz", ROWS)
    whole.write_bytes(whole.read_bytes()[:2000])
    assert refused("--data", whole) == f"{whole}: the compressed file ends early."
    (tmp_path / "page.html").write_text("<p>no example</p>")
    assert refused("--data", tmp_path / "page.html") == f"{tmp_path / 'page.html'}: not a JSONL, Parquet or text file (it holds html)."


def test_labels_that_are_unknown(refused, tmp_path):
    path = write_notes(tmp_path / "notes.jsonl", ROWS)
    assert refused("--data", path, "--positive-label", "2") == (
        f"--positive-label 2: no row of {path} has that value in 'label' (it has 0, 1)."
    )
    values = {"1": {"kitchen": 1}}
    assert refused("--spec", spec(tmp_path, sources=[source(values=values)])).endswith(": the label 0 is unknown (known are 1).")
    assert refused("--spec", spec(tmp_path, sources=[source(answers={"garden": 1})])) == (
        f"{tmp_path / 'spec.yaml'}: sources: notes.jsonl answers 'garden', which is not among the labels (kitchen)."
    )
    many = write_jsonl(tmp_path / "many.jsonl", [{"text": text, "label": text} for text, _ in ROWS])
    assert refused("--data", many) == f"{many}:101: 'label' has more than 100 values, so it names no classes."


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"sources": [{"files": ["a"]}]}, "give label_column, label_columns, answers or weak, or nothing is known of its examples."),
        ({"sources": [source(), source()]}, "two have the name notes.jsonl; give each a name."),
        ({"sources": [source()], "labels": ["a/b"]}, "labels: 'a/b' is no name for a label"),
        ({"sources": [source()], "length": 1, "calibration": "isotonic"}, "length, stop_words: they need calibration: platt."),
        ({"sources": [source()], "split": {"train": 0.9}}, "train, validation and test must add up to 1."),
    ],
)
def test_specs_that_do_not_fit(refused, tmp_path, options, sentence):
    path = spec(tmp_path, **options)
    found = refused("--spec", path)
    assert found.startswith(f"{path}: ") and sentence in found


def test_a_spec_that_is_none(refused, tmp_path):
    path = tmp_path / "spec.yaml"
    assert refused("--spec", path) == f"{path}: can't be read (No such file or directory)."
    path.write_text("labels: [a\nsources")
    assert refused("--spec", path).startswith(f"{path}:2: not valid YAML (")
    path.write_text("- a")
    assert refused("--spec", path) == f"{path}: a spec is a mapping of a training's options."


def test_exactly_one_form(refused, tmp_path):
    path = write_notes(tmp_path / "notes.jsonl", ROWS)
    sentence = "classifier train: give --data, --labels, or --positive and --negative, or --spec."
    assert refused() == sentence
    assert refused("--data", path, "--spec", path) == sentence
    assert refused("--positive", path) == "classifier train: --positive and --negative go together."
    assert refused("--spec", path, "--label-column", "x") == "classifier train: --label-column has no meaning here."


def test_an_output_that_holds_another_thing(tmp_path, corpusmill):
    path = write_notes(tmp_path / "notes.jsonl", ROWS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output, sentence in (
        (path, f"{path}: there is a file of that name; name a new folder."),
        (tmp_path / "mine", f"{tmp_path / 'mine'}: holds something other than a classifier; name a new or empty folder."),
    ):
        for force in ((), ("--force",)):
            code, _, err = corpusmill("classifier", "train", "--data", path, "--output", output, *force)
            assert (code, err.strip()) == (2, f"corpusmill: {sentence}")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_training_that_diverges(refused, tmp_path):
    write_notes(tmp_path / "notes.jsonl", ROWS)
    path = spec(tmp_path, sources=[source()], fasttext={"lr": 1e30, "bucket": 1000})
    assert refused("--spec", path) == (
        "label kitchen: the training gave numbers that are none (NaN) at a learning rate of 1e+30; lower fasttext.lr or fasttext.epoch."
    )


def test_a_model_that_is_too_small_to_be_compressed(refused, tmp_path):
    write_notes(tmp_path / "notes.jsonl", ROWS)
    path = spec(tmp_path, sources=[source()], compress=True, fasttext={"minn": 0, "maxn": 0, "wordNgrams": 1})
    found = refused("--spec", path)
    assert found.startswith("label kitchen: fastText can't train (its ") and found.endswith(
        "too few to be compressed; train with --no-compress)."
    )
