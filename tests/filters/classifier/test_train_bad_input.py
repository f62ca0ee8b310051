"""What users get wrong in `corpusmill classifier train`: one sentence each, exit code 2, and nothing written."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_texts import notes, write_jsonl, write_notes


@pytest.fixture
def refused(tmp_path, corpusmill):
    """Runs the command, which must be refused; the sentence."""

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
        ([*((text, 1) for text, _ in ROWS), ("mallet", 0)], "of 1 different examples with the answer no only"),
        (ROWS[:30], "which needs 5; give more examples."),
    ],
)
def test_classes_that_are_empty_or_alone_or_too_small(refused, tmp_path, rows, sentence):
    assert sentence in refused("--data", write_notes(tmp_path / "notes.jsonl", rows))


def test_contradicting_copies_can_leave_too_little(refused, tmp_path):
    rows = [(text, answer) for text, _ in ROWS for answer in (0, 1)]
    assert "of 0 different examples with the answer yes" in refused("--data", write_notes(tmp_path / "notes.jsonl", rows))


@pytest.mark.parametrize(
    "rows, place, sentence",
    [
        ([{"text": "a", "label": 1}, {"body": "b", "label": 0}], 2, "has no column 'text' (it has body, label)."),
        ([{"text": "a", "label": 1}, {"text": "b"}], 2, "has no column 'label' (it has text)."),
        ([{"text": "a", "label": 1}, {"text": 7, "label": 0}], 2, "'text' is no text (int)."),
        ([{"text": "a", "label": 1}, {"text": "b", "label": {"x": 1}}], 2, "'label' is {'x': 1}, which names no class."),
    ],
)
def test_rows_that_do_not_fit(refused, tmp_path, rows, place, sentence):
    path = write_jsonl(tmp_path / "notes.jsonl", rows)
    assert refused("--data", path) == f"{path}:{place}: {sentence}"


@pytest.mark.parametrize(
    "line, sentence", [(b"{broken\n", ":2: not JSON ("), (b"[1]\n", ":2: not a JSON object."), (b"\xff\n", ":2: byte 0 is not UTF-8.")]
)
def test_lines_that_are_none(refused, tmp_path, line, sentence):
    (tmp_path / "notes.jsonl").write_bytes(b'{"text": "a", "label": 1}\n' + line)
    assert refused("--data", tmp_path / "notes.jsonl").startswith(f"{tmp_path / 'notes.jsonl'}{sentence}")


def test_files_that_cannot_be_read(refused, tmp_path):
    assert refused("--data", tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file or folder."
    assert refused("--data", tmp_path / "*.jsonl") == f"{tmp_path / '*.jsonl'}: no file matches."
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and no more")
    assert refused("--data", path).startswith(f"{path}: not a readable Parquet file")
    pq.write_table(pa.table({"text": [1, 2], "label": [0, 1]}), path)
    assert refused("--data", path) == f"{path}: row 1: 'text' is no text (int)."
    pq.write_table(pa.table({"body": ["a"], "label": [0]}), path)
    assert refused("--data", path) == f"{path}: all rows have the value 0 in 'label'; a classifier needs two classes."
    pq.write_table(pa.table({"body": ["a", "b"], "label": [0, 1]}), path)
    assert refused("--data", path) == f"{path}: has no column 'text' (it has body, label)."
    whole = write_notes(tmp_path / "notes.jsonl.gz", ROWS)
    whole.write_bytes(whole.read_bytes()[:2000])
    assert refused("--data", whole) == f"{whole}: the compressed file ends before its time."
    (tmp_path / "page.html").write_text("<p>no example</p>")
    assert refused("--data", tmp_path / "page.html") == f"{tmp_path / 'page.html'}: not a JSONL, Parquet or text file (it holds html)."
    (tmp_path / "lines.txt").write_text("a line\n")
    assert "a text file has no column 'label'" in refused("--data", tmp_path / "lines.txt")


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
    assert refused("--spec", spec(tmp_path, sources=[{"files": ["notes.jsonl"], "label_columns": {"kitchen": "text"}}])).endswith(
        f"notes.jsonl:1: 'text' is {repr(ROWS[0][0])[:59]}…, not 0 or 1."
    )
    many = write_jsonl(tmp_path / "many.jsonl", [{"text": text, "label": text} for text, _ in ROWS])
    assert refused("--data", many) == f"{many}:101: 'label' has more than 100 values, so it names no classes."


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"sources": []}, "sources: tuple should have at least 1 item"),
        ({"sources": [source()], "colour": 1}, "colour: unknown key."),
        ({"sources": [{"files": ["a"]}]}, "give label_column, label_columns, answers or weak, or nothing is known of its examples."),
        ({"sources": [source(run="r")]}, "give files or a run."),
        ({"sources": [source(), source()]}, "two have the name notes.jsonl; give each a name."),
        ({"sources": [source()], "labels": ["a/b"]}, "labels: 'a/b' is no name for a label"),
        ({"sources": [source()], "labels": ["text"]}, "labels: 'text' is no name for a label"),
        (
            {"sources": [source()], "threshold_rule": "precision=2"},
            "a threshold rule is best_f1, precision=.9 or kept=.1, not precision=2.",
        ),
        ({"sources": [source()], "split": {"train": 0.9}}, "train, validation and test must add up to 1."),
        ({"sources": [source()], "autotune": 0}, "autotune: input should be greater than 0, not 0."),
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
    sentence = "classifier train: give --data, or --positive and --negative, or --spec."
    assert refused() == sentence
    assert refused("--data", path, "--spec", path) == sentence
    assert refused("--data", path, "--positive", path) == sentence
    assert refused("--positive", path) == "classifier train: --positive and --negative go together."
    assert refused("--spec", path, "--label-column", "x") == "classifier train: --label-column has no meaning here."


def test_an_output_that_holds_another_thing(tmp_path, corpusmill):
    path = write_notes(tmp_path / "notes.jsonl", ROWS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for output, sentence in (
        (path, f"{path}: there is a file of that name; name a new folder."),
        (tmp_path / "mine", f"{tmp_path / 'mine'}: holds something else than a classifier; name a new or empty folder."),
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


def test_sources_that_cannot_be_left_out(refused, tmp_path):
    write_notes(tmp_path / "notes.jsonl", ROWS)
    path = spec(tmp_path, sources=[source()], threshold_on="unseen_source", fasttext={"bucket": 1000})
    assert refused("--spec", path) == (
        "label kitchen: no source can be left out (unseen_source): it takes 2 to 8 sources with 50 examples of each answer outside the "
        "test part."
    )


def test_a_model_that_is_too_small_to_be_compressed(refused, tmp_path):
    write_notes(tmp_path / "notes.jsonl", ROWS)
    path = spec(tmp_path, sources=[source()], compress=True, fasttext={"minn": 0, "maxn": 0, "wordNgrams": 1})
    found = refused("--spec", path)
    assert found.startswith("label kitchen: fastText can't train (its ") and found.endswith(
        "too few to be compressed; train with --no-compress)."
    )


def test_words_that_are_all_too_rare(refused, tmp_path):
    write_notes(tmp_path / "notes.jsonl", ROWS)
    path = spec(tmp_path, sources=[source()], fasttext={"minCount": 10_000, "minn": 0, "maxn": 0})
    assert refused("--spec", path) == "label kitchen: no word comes 10000 times; lower fasttext.minCount, or give more examples."
