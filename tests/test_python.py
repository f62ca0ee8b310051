"""Tests Corpusmill from Python: `corpusmill.run` and the other names of the package, as a script or a notebook uses them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    assert run.report("dedup").filter("kept").count("*").fetchall() == [(8,)]
    assert repr(run) == "<run runs/python: ingest, filter, dedup finished; 8 of 10 documents kept>"
    Path("recipe.yaml").write_text(mill.Recipe(STAGES).to_yaml())
    code, _, _ = corpusmill("run", "recipe.yaml", rows, "--output", "runs/command", "--engine", "inline")
    assert code == 0
    for stage in STAGES:
        python, command = (tree(Path("runs", name, stage, "data")) for name in ("python", "command"))
        assert python == command != {}
    assert Path("runs/python/report.html").exists()


def test_twice_in_one_process_nothing_is_done_again(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mill.run(STAGES, [rows], Path("run"), engine="inline", last="filter")
    before = tree(Path("run", "filter"))
    run = mill.run(mill.Recipe(STAGES), [str(rows)], "run", engine="inline")
    assert tree(Path("run", "filter")) == before and run.reader.stages["dedup"].status == "complete"
    assert mill.run(STAGES, rows, "other").documents("dedup").count("*").fetchall() == [(8,)]
    out, err = capsys.readouterr()
    assert out == "" and "internal" not in err


def test_a_notebook_shows_the_funnel_without_markup_of_others(rows: Path) -> None:
    run = mill.run(STAGES, rows, "<b>run", engine="inline")
    html = run._repr_html_()
    cells = ["ingest", "10", "10", "0", "100.0%", "", "filter", "10", "9", "1", "90.0%", "", "dedup", "9", "8", "1", "88.9%", ""]
    assert "".join(f"<td>{cell}</td>" for cell in cells) == html.replace("</tr><tr>", "").partition("<tbody><tr>")[2].partition("</tr>")[0]
    assert "&lt;b&gt;run" in html and "<b>" not in html and "<script" not in html


def test_a_run_that_is_not_finished_says_so(rows: Path) -> None:
    run = mill.run(STAGES, rows, "run", engine="inline", last="ingest")
    assert repr(run) == "<run run: ingest finished; 10 of 10 documents kept>"
    with pytest.raises(mill.InputError, match="^run: a run, where a recipe is expected\\.$"):
        mill.run("run", rows, "other")
    Path("empty").mkdir()
    Path("empty/run.json").write_text('{"recipe": {}}')
    assert repr(mill.open_run(Path("empty"))) == "<run empty: no stage finished>" and "<tr>" not in mill.open_run("empty")._repr_html_()


def test_other_thresholds(rows: Path) -> None:
    run = mill.run(STAGES, rows, "run", engine="inline", last="filter")
    changes = mill.retune(run, {"too_short": None}, write=False, engine="inline")
    assert (changes.kept_before, changes.kept, changes.failed) == (9, 10, {"too_short": (1, 0)})
    assert mill.open_run("run").report("filter").filter("kept").count("*").fetchall() == [(9,)]
    mill.retune("run", {"too_short": 50}, engine="inline", write=False)
    mill.retune("run", {"too_short": False}, engine="inline")
    assert mill.open_run("run").report("filter").filter("kept").count("*").fetchall() == [(10,)]


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
    (STAGES, {"last": "tokens"}, mill.InputError, r"tokens: the recipe has no such stage"),
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
    assert mill.open_run("run").documents("ingest").count("*").fetchall() == [(10,)]


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
