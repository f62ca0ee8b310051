"""Tests README, SECURITY and docs: links resolve, commands, options and imports exist, recipes are valid, examples run and fail as said."""

import glob
import importlib
import importlib.util
import linecache
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from tiny_crawl import make_crawl
from whole_run import DATA, write_inputs

import corpusmill as package
from corpusmill import cli
from corpusmill.cli import app
from corpusmill.dedup.removal import MEANINGS as DEDUP_RULES
from corpusmill.ingest.rows import MEANINGS as INGEST_RULES
from corpusmill.pipeline.errors import ConfigError
from corpusmill.pipeline.recipe import STAGES, stage_class, validate_recipe
from corpusmill.report.answers.recipe import expanded
from corpusmill.report.answers.why_change import OPTION
from corpusmill.tokenize.planning import MEANINGS as TOKENS_RULES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ALL = {str(path.relative_to(ROOT)): path for path in (*ROOT.glob("*.md"), ROOT / "recipes/cluster/README.md", *sorted(DOCS.rglob("*.md")))}
#: The pages that people write and users read.
PAGES = {page: path for page, path in ALL.items() if re.match(r"README|SECURITY|docs/(?!reference/|recipes\.md)", page)}
#: The pages whose blocks are executed, in their order. The first makes the files and the run that the others look at.
EXECUTED = ["docs/start.md", *sorted(page for page in PAGES if page.startswith("docs/guides/"))]
#: Names in the prose of the docs that are not in the program: those of other projects, and those that are put together.
OF_OTHERS = {"bfd_split", "get_data_reader", "max_seq_len", "assistant_only_loss", "strftime_now", "_badwords_regex", "skip_on_exit_code"}
MADE_UP = re.compile(r"(ingest|filter|dedup|tokens|pretrain|sft|align|json)_|regex_filter|symbol_lines_formatter")
#: Examples name files that are not here: these errors of the recipe's reader do not concern its options.
ELSEWHERE = re.compile(r"can't be read|sha256: string should match|no such folder|can't be loaded|topic\.txt is no prompt")


@cache
def reference() -> ModuleType:
    """Returns docs/reference.py, the hook of the site."""
    spec = importlib.util.spec_from_file_location("site_reference", DOCS / "reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_reference"] = module
    spec.loader.exec_module(module)
    return module


@cache
def site() -> dict[str, str]:
    """Returns all pages of the site by their path below docs/: those of docs/, and the files from elsewhere."""
    there = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.rglob("*.md")}
    return {**{name: reference().in_the_site(name, text) for name, text in there.items()}, **reference().included(there)}


# ---- Links, commands, recipes, imports


def test_links_of_the_site() -> None:
    for page, text in site().items():
        for link in re.findall(r"\]\((?!http)([^)\s]+)\)", prose(text)):
            path, _, anchor = link.partition("#")
            target = os.path.normpath(Path(page).parent / path) if path else page
            assert target in site() or (DOCS / target).is_file(), (page, link)
            assert not anchor or anchor in anchors(site()[target]), (page, link)


def test_links_in_the_repository() -> None:
    """The links of all pages, as the repository's own page shows them."""
    for page, path in ALL.items():
        for link in re.findall(r"\]\((?!http)([^)\s]+)\)", prose(path.read_text())):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), (page, link)
            assert not anchor or anchor in anchors(target.read_text()), (page, link)


def test_written_pages_are_fresh() -> None:
    """`make reference` writes them; how words are spread over lines, typer decides."""
    written = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.rglob("*.md")}
    written = {name: text.split() for name, text in written.items() if reference().is_written(name)}
    fresh = {name: text.split() for name, text in reference().pages().items()}
    old = sorted(name for name in written.keys() | fresh.keys() if written.get(name) != fresh.get(name))
    assert old == [], "these pages are old: make reference"


def prose(text: str) -> str:
    """Returns a page without its blocks, code and pictures."""
    return re.sub(r"```.*?```|`[^`\n]*`|!\[[^]]*\]\([^)]*\)", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """Returns the anchors that headings get."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    root = typer.main.get_command(app)
    for line in re.findall(r"corpusmill ([a-z][^\n`|#;&]*)", PAGES[page].read_text().replace("\\\n", " ")):
        command, words = root, line.split()
        while getattr(command, "commands", None):
            name = words[0] if words and words[0] in command.commands else {"tokens": "encode", "sft": "tune"}.get(command.name or "")
            if name is None:
                break
            command, words = command.commands[name], words[words[:1] == [name] :]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert not {word for word in words if re.fullmatch(r"--[a-z-]+", word)} - known, line


@pytest.mark.parametrize("page", PAGES)
def test_recipes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page].read_text(), re.DOTALL):
        example = yaml.safe_load(textwrap.dedent(block))
        recipe = {"filter": {"steps": example}} if isinstance(example, list) else example
        if set(recipe) <= set(STAGES):
            try:
                validate_recipe(recipe, "recipe.yaml")
            except ConfigError as error:
                assert all(ELSEWHERE.search(fault) for fault in str(error).split("; ")), error


@pytest.mark.parametrize("page", PAGES)
def test_imports(page: str) -> None:
    for module, names in re.findall(r"^from (corpusmill\S*) import ([\w, ]+)", PAGES[page].read_text(), re.MULTILINE):
        loaded = importlib.import_module(module)
        assert [name for name in names.strip().split(", ") if not hasattr(loaded, name)] == [], module


def test_the_steps_of_fineweb_are_those_of_the_program() -> None:
    assert f"```yaml\n{expanded('fineweb', 'filter')}```\n" in PAGES["docs/stages/filter.md"].read_text()


# ---- The reference


def test_every_rule_has_an_example_that_fails() -> None:
    """`measured` raises where an example does not fail its rule."""
    given = reference().examples_file()
    steps = [name for name in reference().STEPS if name not in reference().OTHERS]
    rules = {rule for name in steps for rule in reference().rules_of(name)}
    shown = {rule for name in steps for rule in reference().measured(name)}
    assert shown | set(given["without"]) == rules
    assert {rule for item in given["examples"] for rule in item["rules"]} == shown


def test_reference_has_a_page_for_each_rule_step_stage_command_and_object() -> None:
    pages = site()
    assert "fails: **fewer than 50 words**" in pages["reference/rules/gopher_short_doc.md"]
    assert "| `characters` | `gopher_words < 80` | fewer than 80 words |" in pages["reference/rules/gopher_short_doc.md"]
    assert "Measured: `gopher_words` is 4, so it fails." in pages["reference/rules/gopher_short_doc.md"]
    assert {f"reference/steps/{name}.md" for name in reference().STEPS} <= set(pages)
    assert all("| `" in pages[f"reference/stages/{name}.md"] for name in STAGES)
    assert {"reference/commands/run.md", "reference/commands/tokens-export.md"} <= set(pages)
    assert {name.lower() for name in package.__all__} <= {Path(page).stem.removesuffix("-class").lower() for page in pages}


@pytest.mark.long  # most of a minute
def test_site_builds(tmp_path: Path) -> None:
    """mkdocs.yml is strict: a broken link or anchor is an error."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"], cwd=ROOT, check=True)
    assert (tmp_path / "site" / "reference" / "rules" / "gopher_short_doc" / "index.html").is_file()
    outside = [
        path for path in (tmp_path / "site").rglob("*.html") if re.search(r'<(script|link)[^>]*(src|href)="https?:', path.read_text())
    ]
    assert outside == []  # the site asks nothing of other hosts


# ---- Names of rules

#: The rules of the stages whose rules have no thresholds.
MEANINGS = {"ingest": INGEST_RULES, "dedup": DEDUP_RULES, "tokens": TOKENS_RULES}


def program() -> dict[str, str]:
    """Returns the text of each file of the program, by its path."""
    rooms = ("src", "pipeline", "text", "ingest", "filters", "dedup", "tokenize", "train", "report", "ablate", "recipes")
    paths = [path for room in rooms for path in sorted((ROOT / room).rglob("*.*")) if "__pycache__" not in path.parts]
    files = [path for path in paths if path.is_file() and path.suffix != ".npz"]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files}


def test_the_reason_of_a_rule_names_options_that_exist() -> None:
    """`why` advises to change them."""
    for stage, meanings in MEANINGS.items():
        named = {rule: OPTION.findall(meaning) for rule, meaning in meanings.items()}
        for section, option in (each.split(".") for options in named.values() for each in options):
            assert option in str(stage_class(stage).Config.model_json_schema()), (stage, section, option)
            assert section in stage_class(stage).Config.model_fields
    named = {rule for meanings in MEANINGS.values() for rule, meaning in meanings.items() if OPTION.search(meaning)}
    assert named >= {"out_of_memory", "timeout", "too_large", "too_deep", "too_short", "budget"}


def test_texts_and_docs_name_rules_that_exist() -> None:
    """So do commands in messages and docs, and a name in the prose of the docs is one of the program or, seldom, of another one."""
    steps = [name for name in reference().STEPS if name not in reference().OTHERS]
    rules = {rule for name in steps for rule in reference().rules_of(name)} | {rule for each in MEANINGS.values() for rule in each}
    texts = {**program(), **{page: path.read_text() for page, path in PAGES.items()}}
    for path, text in texts.items():
        for option, rule in re.findall(r"(filter\.thresholds\.|--rule )([a-z]+_\w+)", text):
            assert rule in rules or f'"{rule}"' in text, (path, option, rule)  # or one of a filter that the page itself writes
    words = set(re.findall(r"\w+", "\n".join(program().values())))
    for page, path in PAGES.items():
        unknown = set(re.findall(r"`(\w+_\w+)`", path.read_text())) - words - {"http_body"}  # a target of `make fuzz`
        assert unknown <= OF_OTHERS | {name for name in unknown if MADE_UP.match(name)}, page


# ---- The blocks of the five minutes and the guides, executed in their order


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Returns a folder with a crawl and a run of it, `runs/demo`, in which the blocks of the first page are executed."""
    folder = tmp_path_factory.mktemp("desk")
    before = Path.cwd()
    os.chdir(folder)
    (folder / "crawl").mkdir()
    make_crawl(folder / "crawl")
    recipe, _ = write_inputs(folder / "inputs")
    recipe.write_text(DATA + "tokens: {validation_share: 0.1}\n")
    command(["run", str(recipe), "crawl", "--output", "runs/demo"])
    execute("docs/start.md")
    yield folder
    os.chdir(before)


# the cluster of the guide is that of tests/pipeline/test_cluster.py
@pytest.mark.long
@pytest.mark.parametrize("page", EXECUTED[1:])
def test_blocks(page: str, desk: Path) -> None:
    execute(page)  # asserts that each command ends with 0


def test_five_minutes_say_what_happens(desk: Path, corpusmill: Callable[..., tuple[int, bytes, str]]) -> None:
    run = package.open_run("runs/first")
    assert [url for (url,) in run.sql("SELECT url FROM dedup_documents").fetchall()] == ["https://example.com/mill"]
    failed = dict(run.sql("SELECT url, failed FROM filter_report").fetchall())
    assert failed["https://example.com/note"] == ["gopher_short_doc"] and "language" in failed["https://example.com/moulin"]
    _, out, _ = corpusmill("retune", "runs/first", "--set", "filter.thresholds.gopher_short_doc=40", "--dry-run")
    assert b"1 came back" in out


def blocks(page: str) -> Iterator[tuple[str, str, str]]:
    """Yields the language, the comment above, and the text of each block of a page."""
    for comment, language, text in re.findall(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```", PAGES[page].read_text(), re.DOTALL):
        yield language, comment, text


def execute(page: str) -> None:
    """Executes the blocks of a page in this folder, in their order. A YAML or Python block that is to be saved is saved.

    A block below a comment `not run: REASON` is left out.
    """
    names: dict[str, object] = {"__name__": "__main__"}
    text = PAGES[page].read_text()
    for language, comment, block in blocks(page):
        saved = re.search(r"as `([\w.]+)`[^`]*$", text[: text.index(f"```{language}\n{block}")])
        if saved and len(text[saved.end() : text.index(f"```{language}\n{block}")]) < 60:
            Path(saved[1]).write_text(block)
        if comment.startswith("not run: "):
            continue
        if language == "python":
            cell = f"<{page}, {len(linecache.cache)}>"
            linecache.cache[cell] = (len(block), None, block.splitlines(keepends=True), cell)  # as a notebook does
            exec(compile(block, cell, "exec"), names)
        elif language == "sh":
            for line in shell_lines(block):
                shell(line)


def shell_lines(block: str) -> Iterator[str]:
    """Yields the commands of a block; a command with a here-document is one."""
    for found in re.finditer(r"^.*<<'END'\n.*?^END$|^.+$", block.replace("\\\n", " "), re.DOTALL | re.MULTILINE):
        yield from [found[0]] if "<<" in found[0] else found[0].splitlines()


def shell(line: str) -> None:
    if not line.startswith("corpusmill"):
        subprocess.run(["bash", "-ec", line], check=True)
        return
    words = shlex.split(line, comments=True)[1:]
    *words, file = words[:-2] + words[-1:] if words[-2:-1] == [">"] else [*words, None]
    with open(file, "w") if file else nullcontext(sys.stdout) as output, redirect_stdout(output):
        command([found for word in words for found in (sorted(glob.glob(word)) or [word])])


def command(arguments: list[str]) -> None:
    """Runs the command in this process, without Ray."""
    before, sys.argv = sys.argv, ["corpusmill", *arguments, *(["--engine", "inline"] if arguments[0] == "run" else [])]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, arguments
    finally:
        sys.argv = before
