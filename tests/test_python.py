"""Tests Corpusmill from Python: `corpusmill.run` and the other names of the package, as a script or a notebook uses them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import yaml
from trees import tree

import corpusmill as mill

#: A step that counts words, and presses Ctrl-C once where it finds the file `press`.
STEP = """
import signal
from pathlib import Path

from corpusmill.filters.own import Rule, measures


@measures({"words": "int64"}, rules=[Rule("too_short", "words", "<", 5)])
def count(documents):
    if Path("press").exists():
        Path("press").unlink()
        signal.raise_signal(signal.SIGINT)
    return {"words": [len(text.split()) for text in documents["text"].to_pylist()]}
"""
STAGES: dict[str, Any] = {"ingest": {}, "filter": {"steps": [{"python": "own_step.py:count"}]}, "dedup": {}}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of eight different documents, a copy of one, and one of two words."""
    monkeypatch.chdir(tmp_path)
    Path("own_step.py").write_text(STEP)
    animals = ["ants", "bees", "cats", "dogs", "eels", "fish", "gnus", "hens"]
    texts = [f"The page number {number} is about {animal}. " * 3 for number, animal in enumerate(animals)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, texts[0], "too short"]))
    return path


def test_a_run_from_python_is_that_of_the_command(rows: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    run = mill.run(STAGES, rows, "runs/python")
    assert run.table("dedup_report").filter("kept").count("*").fetchall() == [(8,)]
    assert repr(run) == "<run runs/python: ingest, filter, dedup finished; 8 of 10 documents kept>"
    offered = {name for name in dir(run) if not name.startswith("_")}
    assert {"sql", "table", "why", "sweep", "retune", "fork", "diff"} <= offered and all(hasattr(run, name) for name in offered)
    assert "hold" not in offered  # readers of a run call it, users do not
    Path("recipe.yaml").write_text(mill.Recipe(STAGES).to_yaml())
    code, _, _ = corpusmill("run", "recipe.yaml", rows, "--output", "runs/command", "--engine", "inline")
    assert code == 0
    for stage in STAGES:
        python, command = (tree(Path("runs", name, stage, "data")) for name in ("python", "command"))
        assert python == command != {}
    assert Path("runs/python/report.html").exists()


def test_a_notebook_shows_the_funnel_without_markup_of_others(rows: Path) -> None:
    run = mill.run(STAGES, rows, "<b>run", engine="inline")
    html = run._repr_html_()
    cells = ["ingest", "10", "10", "0", "100.0%", "", "filter", "10", "9", "1", "90.0%", "", "dedup", "9", "8", "1", "88.9%", ""]
    assert "".join(f"<td>{cell}</td>" for cell in cells) == html.replace("</tr><tr>", "").partition("<tbody><tr>")[2].partition("</tr>")[0]
    assert "&lt;b&gt;run" in html and "<b>" not in html and "<script" not in html


def test_a_run_that_is_not_finished_says_so(rows: Path) -> None:
    run = mill.run(STAGES, rows, "run", engine="inline", to="ingest")
    assert repr(run) == "<run run: ingest finished; 10 of 10 documents kept>"
    with pytest.raises(mill.InputError, match="^run: this run has a folder and inputs of its own"):
        mill.run(run, rows, "other")
    assert repr(mill.run(run, engine="inline")).endswith("ingest, filter, dedup finished; 8 of 10 documents kept>")
    Path("empty").mkdir()
    Path("empty/run.json").write_text('{"recipe": {}}')
    assert repr(mill.open_run(Path("empty"))) == "<run empty: no stage finished>" and "<tr>" not in mill.open_run("empty")._repr_html_()


def test_other_thresholds(rows: Path) -> None:
    run = mill.run(STAGES, rows, "run", engine="inline", to="filter")
    changes = run.retune({"too_short": None}, dry_run=True, engine="inline", trust=True)
    assert (changes.kept_before, changes.kept, changes.failed) == (9, 10, {"too_short": (1, 0)})
    assert mill.open_run("run").table("filter_report").filter("kept").count("*").fetchall() == [(9,)]
    run.retune({"too_short": 50}, engine="inline", dry_run=True, trust=True)
    run.retune({"filter.thresholds.too_short": False}, engine="inline")
    assert run.table("filter_report").filter("kept").count("*").fetchall() == [(10,)]


@pytest.mark.long
def test_ctrl_c_ends_a_run_and_the_same_call_goes_on(rows: Path) -> None:
    """In a script without `if __name__ == "__main__"`."""
    script = f"import corpusmill\nprint(corpusmill.run({STAGES!r}, 'rows.jsonl', 'run'))\n"
    Path("script.py").write_text(script)
    Path("press").touch()
    first, again = (subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=None, check=False) for _ in range(2))
    assert first.returncode == -2 and first.stderr.rstrip().endswith("KeyboardInterrupt") and first.stdout == ""
    assert again.returncode == 0, again.stderr
    assert again.stdout == "<run run: ingest, filter, dedup finished; 8 of 10 documents kept>\n"


ERRORS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ({"filter": {"presett": 1}}, {}, mill.ConfigError, r"recipe: filter\.presett: unknown key"),
    ({"filtre": {}}, {}, mill.ConfigError, r"recipe: filtre: no such stage"),
    ({"dedup": {"threshold": "high"}}, {}, mill.ConfigError, r"recipe: dedup\.threshold: .*'high'"),
    ({"dedup": 3}, {}, mill.ConfigError, r"recipe: dedup: .*3"),
    ("fineweb", {"inputs": "none.warc.gz"}, mill.InputError, r"none\.warc\.gz: no such file"),
    ("finweb", {}, mill.InputError, r"finweb: no such recipe"),
    (STAGES, {"engine": "spark"}, mill.InputError, r"engine='spark': expected auto, ray or inline\."),
    (STAGES, {"workers": -1}, mill.InputError, r"workers=-1: expected 0 or more\."),
    (STAGES, {"task_timeout": -0.5}, mill.InputError, r"task_timeout=-0\.5: expected 0 or more\."),
    ("a" * 300, {}, mill.InputError, r"a{300}: no such recipe or run"),
    (STAGES, {"inputs": []}, mill.InputError, r"recipe: the recipe begins with ingest, so it needs at least one input path\."),
    (STAGES, {"to": "tokens"}, mill.InputError, r"tokens: the recipe has no such stage"),
]


@pytest.mark.parametrize(("recipe", "given", "error", "message"), ERRORS)
def test_errors_are_the_sentences_of_the_command(
    recipe: Any, given: dict[str, Any], error: type[Exception], message: str, rows: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        mill.run(recipe, **{"inputs": rows, "output": "run", "engine": "inline", **given})
    assert "\n" not in str(raised.value) and isinstance(raised.value, mill.CorpusmillError)


def test_a_run_that_keeps_nothing(rows: Path) -> None:
    nothing = mill.Recipe(STAGES).with_({"filter.thresholds": {"too_short": 1000}})
    with pytest.raises(mill.NothingKept, match="none of 10 documents was kept, and the rule that dropped most is too_short"):
        mill.run(nothing, rows, "run", engine="inline")
    assert mill.open_run("run").table("ingest_documents").count("*").fetchall() == [(10,)]


# ---- functions, rows and texts of Python ----------------------------------------------------------------

OWN = """
import json, re, sys
import corpusmill
from corpusmill.filters.gopher import GopherQuality
from corpusmill.filters.own import Rule, measures

LEAST, PATTERN, ANIMALS = 2, re.compile("(?i)PAGE|about"), {"cats.", "dogs."}
texts = object()  # no part of the functions, though one has a variable of this name


class Counter:
    def count(self, text):
        return len(PATTERN.findall(text)) + bool(ANIMALS & set(text.split()))


def hits(text):
    return Counter().count(text)


@measures({"hits": "int64"}, rules=[Rule("few_hits", "hits", "<", LEAST)])
def own(documents):
    texts = documents["text"].to_pylist()
    return {"hits": [hits(text) for text in texts]}


quality = GopherQuality(GopherQuality.Config(preset="gopher-paper"))
off = dict.fromkeys(["gopher_short_doc", "gopher_below_alpha_threshold", "gopher_enough_stop_words"])
recipe = {"ingest": {}, "filter": {"steps": [own, quality, {"python": own}], "thresholds": {**off, "few_hits_2": None}}}
run = corpusmill.run(recipe, "rows.jsonl", "run", engine=sys.argv[1], workers=2)
print(json.dumps(run.table("filter_report").select("kept, failed, hits, hits_2, gopher_words").fetchall()))
"""


@pytest.mark.long
@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.long)])
def test_functions_of_a_script_and_step_objects_are_steps(
    rows: Path, engine: str, corpusmill: Callable[..., tuple[int, bytes, str]]
) -> None:
    """Also on workers, in a second run of the script, and for a command, which has no script."""
    Path("script.py").write_text(OWN)
    call = [sys.executable, "script.py", engine]
    first = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    assert [row[2] for row in first] == [row[3] for row in first] == [6, 6, 9 - 2, 9 - 2, 6, 6, 6, 6, 6, 0]
    assert [row[:2] for row in first] == [[True, []]] * 9 + [[False, ["few_hits"]]]
    before = tree(Path("run", "filter"))
    assert json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout) == first
    assert tree(Path("run", "filter")) == before
    assert corpusmill("retune", "run", "--set", "filter.thresholds.few_hits=off", "--engine", "inline")[0] == 0
    Path("script.py").write_text(OWN.replace("LEAST, PATTERN, ANIMALS = 2", "LEAST, PATTERN, ANIMALS = 3"))
    again = subprocess.run(call, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "InputError" in again.stderr and "redo" in again.stderr


def keeps(limit: int) -> Any:
    def inner(documents: Any) -> dict[str, Any]:
        return {"n": [limit] * len(documents)}

    return inner


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda documents: {}, r"filter\.steps\.0\.python.*a lambda has no source of its own; write a function"),
        (keeps(3), r"inner: keeps limit of the function around it; make it an argument"),
        ({"python": json.JSONDecoder()}, r"filter\.steps\.0"),
        ({"python": len}, r"a builtin_function_or_method has no source of its own"),
        (keeps, r"test_python:keeps: has no @measures decorator"),
        (3, r"a step is one name with its options"),
    ],
)
def test_what_is_no_step_is_a_sentence(step: Any, message: str) -> None:
    with pytest.raises(mill.ConfigError, match=message):
        mill.Recipe({"filter": {"steps": [step]}})


@pytest.mark.long
def test_rows_of_every_kind_are_inputs(rows: Path) -> None:
    items = [{**json.loads(line), "title": f"T{n}", "n": n} for n, line in enumerate(rows.read_text().splitlines())]
    table = pa.Table.from_pylist(items)
    rows.write_text("".join(json.dumps(item) + "\n" for item in items))
    frame = pd.concat([pd.DataFrame(items[:4]), pd.DataFrame(items[4:])])  # its index is no range
    columns = "id, title, text, metadata"
    expected = mill.run(STAGES, rows, "jsonl", engine="inline", to="ingest").table("ingest_documents").select(columns).fetchall()
    for number, given in enumerate([items, frame, pl.DataFrame(items), table, [table], datasets.Dataset.from_list(items)]):
        run = mill.run(STAGES, given, f"run{number}", engine="inline", to="ingest")
        assert run.table("ingest_documents").select(columns).fetchall() == expected
    before = tree(Path("run0", "ingest"))
    assert tree(Path(mill.run(STAGES, table, "run0", engine="inline").folder, "ingest")) == before
    with pytest.raises(mill.InputError, match="this would replace what is finished there"):
        mill.run(STAGES, items[:4], "run0", engine="inline")
    with pytest.raises(mill.InputError, match="^inputs: the values of 'n' are not of one type"):
        mill.run(STAGES, [{"text": "x", "n": 1}, {"text": "y", "n": "two"}], "mixed")
    with pytest.raises(mill.InputError, match=r"no column 'text' \(ingest\.text_key\); it has body"):
        mill.run(STAGES, [{"body": "x"}], "body", engine="inline")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(mill.InputError, match="^mine: holds something other than a run"):
        mill.run(STAGES, items, "mine")
    assert os.listdir("mine") == ["notes.txt"]  # nothing is written before a folder is known to be a run's


def test_texts_are_measured_as_in_a_run(rows: Path) -> None:
    run = mill.run({"ingest": {}, "filter": {"preset": "gopher-paper"}}, rows, "run", engine="inline", to="ingest")
    texts = [text for (text,) in run.table("ingest_documents").select("text").fetchall()]
    with pytest.raises(mill.NothingKept):
        mill.run(run, engine="inline")
    expected = mill.open_run(run).table("filter_report").select("* EXCLUDE (id, url)").to_arrow_table().to_pylist()
    found = mill.measure(texts, preset="gopher-paper").select("* EXCLUDE (text)").to_arrow_table().to_pylist()
    assert found == expected and len(found) == 10
    one = mill.measure(texts[0], recipe=STAGES)
    assert (one["kept"], one["words"], one["text"]) == (True, 21, texts[0])
    assert mill.measure("three words only", recipe=STAGES, thresholds={"too_short": 3})["failed"] == []
    for table in (pd.DataFrame({"url": ["u"], "text": texts[:1]}), pa.table({"text": texts}), {"text": texts}):
        with pytest.raises(mill.InputError, match="not a table; give its column"):
            mill.measure(table, recipe=STAGES)
    assert mill.measure(pd.DataFrame({"text": texts})["text"], recipe=STAGES).to_arrow_table()["words"].to_pylist()[0] == 21
    assert not Path("runs").exists()


# ---- the commands on a run ------------------------------------------------------------------------------


def test_what_a_run_says_is_what_the_commands_say(rows: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    run = mill.run({**STAGES, "dedup": {}}, rows, "run", engine="inline")
    other = run.fork({"too_short": None}, "other", engine="inline")
    assert repr(mill.run(other, engine="inline")) == "<run other: ingest, filter, dedup finished; 9 of 10 documents kept>"
    copy = run.table("dedup_report").filter("cluster_size > 1").fetchall()[0][0]
    said = {
        ("why", "run", copy, "--marks"): run.why(copy, marks=True),
        ("why", "run", "is about cats.", "--text"): run.why("is about cats.", text=True),
        ("diff", "run", "other", "--samples", 1): run.diff(other, samples=1),
        ("sweep", "run", "too_short", "--from", 0, "--to", 30, "--steps", 4, "--trust"): run.sweep("too_short", 0, 30, steps=4, trust=True),
        ("clusters", "run", "--id", copy): run.clusters(id=copy),
    }
    for command, answer in said.items():
        code, out, _ = corpusmill(*command, "--json")
        found = answer.as_json()
        assert code == 0 and json.loads(out) == json.loads(json.dumps(found[0] if isinstance(found, list) else found)), command
        assert repr(answer).splitlines()[0][:20] in corpusmill(*command)[1].decode()
    assert [row.alone_documents for row in run.sweep("too_short", 0, 30, steps=4, trust=True).rows] == [
        10,
        9,
        9,
        9,
        0,
    ]  # with the present one
    Path("run/report.html").unlink()
    assert run.report() == "run/report.html" and Path("run/report.html").exists()


CALLS: list[tuple[Callable[[], Any], str]] = [
    (lambda: mill.run(), r"^run: missing a required argument: 'recipe'; the arguments are recipe, inputs, output"),
    (lambda: mill.run("fineweb", input="x"), r"^run: got an unexpected keyword argument 'input'"),
    (lambda: mill.run(5), r"^recipe: expected a path, not 5\.$"),
    (lambda: mill.run("fineweb", 5), r"^inputs: expected a path, not 5\.$"),
    (lambda: mill.open_run(), r"^open_run: missing a required argument: 'path'"),
    (lambda: mill.Recipe(), r"^Recipe: missing a required argument: 'stages'"),
    (lambda: mill.open_run("run").table(), r"^table: missing a required argument: 'name'"),
    (lambda: mill.Recipe.load(), r"^load: missing a required argument: 'recipe'"),
    (lambda: mill.measure(), r"^measure: missing a required argument: 'texts'"),
    (lambda: mill.measure(["a", 5]), r"^measure: expected a text or several, not 5\.$"),
    (lambda: mill.open_run("run").why(), r"^why: missing a required argument: 'document'; the arguments are document, text, marks\.$"),
    (lambda: mill.open_run("run").why(5), r"^why: document is a text, not 5\.$"),
    (lambda: mill.open_run("run").sweep(), r"^sweep: missing a required argument: 'rule'"),
    (lambda: mill.open_run("run").retune("too_short=3"), r"^thresholds: expected the threshold of each rule"),
    (lambda: mill.open_run("run").diff(), r"^diff: missing a required argument: 'other'"),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_missing_and_wrong_arguments_end_in_a_sentence(call: Callable[[], Any], message: str, rows: Path) -> None:
    Path("run").mkdir()
    Path("run/run.json").write_text('{"recipe": {}, "inputs": []}')
    with pytest.raises(mill.InputError, match=message):
        call()


# ---- recipes -------------------------------------------------------------------------------------------


def test_a_recipe_survives_yaml() -> None:
    recipe = mill.Recipe({"filter": {"preset": "fineweb"}, "dedup": None, "ingest": {"task_mb": 3}})
    assert recipe.stages == ["ingest", "filter", "dedup"]
    assert mill.Recipe(yaml.safe_load(recipe.to_yaml())) == recipe != mill.Recipe({"filter": {}})
    assert repr(recipe) == "Recipe({'filter': {'preset': 'fineweb'}, 'dedup': None, 'ingest': {'task_mb': 3}})"
    assert eval(repr(recipe), {"Recipe": mill.Recipe}) == recipe  # noqa: S307 - a text of ours
    with pytest.raises(mill.ConfigError, match="a recipe is a mapping"):
        mill.Recipe(["ingest"])  # type: ignore[arg-type]


def test_other_values_make_another_recipe() -> None:
    recipe = mill.Recipe.load("dedup")
    changed = recipe.with_({"dedup.threshold": 0.7, "filter.thresholds.gopher_short_doc": 80})
    assert changed.sections["dedup"].threshold == 0.7 != recipe.sections["dedup"].threshold  # type: ignore[attr-defined]
    assert changed.to_dict()["filter"]["thresholds"] == {"gopher_short_doc": 80} and changed != recipe
    with pytest.raises(mill.ConfigError, match=r"dedup\.threshhold: unknown key"):
        recipe.with_({"dedup.threshhold": 0.7})
    with pytest.raises(mill.ConfigError, match=r"^dedup\.threshold\.x: 'threshold' holds a value, not a section\."):
        changed.with_({"dedup.threshold.x": 1})


def test_files_of_a_change_are_looked_for_where_the_caller_stands(rows: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    Path("mine").mkdir()
    Path("mine/base.py").write_text(STEP)
    Path("mine/recipe.yaml").write_text("ingest: {}\nfilter: {steps: [{python: base.py:count}]}\n")
    steps = [{"python": "own_step.py:count"}, {"python": {"own_step.py:count": {}}}, {"python": {"function": "mine/base.py:count"}}]
    here = str(rows.parent)
    for recipe in ("mine/recipe.yaml", "dedup"):
        changed = mill.Recipe.load(recipe).with_({"filter.steps": steps})
        given = [step["python"]["function"] for step in changed.sections["filter"].steps]  # type: ignore[attr-defined]
        assert given == [f"{here}/own_step.py:count"] * 2 + [f"{here}/mine/base.py:count"]
        assert mill.Recipe(yaml.safe_load(changed.to_yaml())) == changed
    kept = mill.Recipe.load("mine/recipe.yaml").with_({"filter.thresholds.too_short": 3}).sections["filter"]
    assert kept.steps[0]["python"]["function"] == f"{here}/mine/base.py:count"  # type: ignore[attr-defined]
    change = ("--set", "filter.steps.0.python=own_step.py:count")
    assert corpusmill("run", "mine/recipe.yaml", rows, "--output", "run", *change, "--engine", "inline")[0] == 0
    with pytest.raises(mill.ConfigError, match=f"{here}/none.py: can't be read"):
        mill.Recipe.load("dedup").with_({"filter.steps": [{"python": "none.py:count"}]})


# ---- names ---------------------------------------------------------------------------------------------


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_name_is_there_and_nothing_is_imported_before_its_use() -> None:
    said = in_a_new_process(
        "import sys, corpusmill\n"
        "names = dir(corpusmill)\n"
        "print(set(corpusmill.__all__) <= set(names), [name for name in ('numpy', 'yaml', 'pydantic', 'duckdb') if name in sys.modules])\n"
        "print([name for name in corpusmill.__all__ if not callable(getattr(corpusmill, name))])\n"
        "try: corpusmill.sun\nexcept AttributeError as error: print(error)\n"
    )
    assert said == "True []\n[]\nmodule 'corpusmill' has no attribute 'sun'\n"


def test_without_torch_one_sentence_says_what_is_missing() -> None:
    said = in_a_new_process(
        "import sys\nsys.modules['torch'] = None\nimport corpusmill\n"
        "try: corpusmill.TokenDataset\nexcept ImportError as error: print(error)\n"
        "print(corpusmill.Recipe({'ingest': {}}))\n"
    )
    assert said == ("corpusmill.TokenDataset: torch is not installed here; pip install 'corpusmill[train]'.\nRecipe({'ingest': {}})\n")


def test_the_package_has_types() -> None:
    assert (Path(mill.__file__).parent / "py.typed").exists()


def test_a_run_that_keeps_nothing_says_why(tmp_path: Path) -> None:
    rows = [{"text": "A mill grinds corn.", "url": "http://a.test/1"}]
    with pytest.raises(mill.NothingKept) as nothing:
        mill.run({"ingest": {}, "filter": {"steps": ["gopher_quality"]}}, rows, str(tmp_path / "run"), engine="inline")
    assert nothing.value.run.sql("SELECT failed FROM filter_report").fetchall()[0][0][0] == "gopher_short_doc"
