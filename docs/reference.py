"""Writes the pages that say what the program itself knows: `make reference`, which needs no mkdocs. And the hook of the site (mkdocs.yml).

The written pages are docs/recipes.md and docs/reference/: a page for each rule, step, stage, command and Python object. They are committed,
so that links to them lead somewhere in the repository, too; tests/test_docs.py says when they are old. The hook adds files from outside of
docs/ to the site, and `llms.txt`.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from inspect import getdoc, isclass, isfunction, signature
from pathlib import Path
from posixpath import dirname, normpath, relpath
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer
import yaml

import corpusmill
from corpusmill.cli import app
from corpusmill.dedup.removal import MEANINGS as DEDUP_REASONS
from corpusmill.filters.presets import BY_LANGUAGE, PRESETS
from corpusmill.filters.rules import Rule, StepRule, meaning
from corpusmill.filters.step import OTHERS, STEPS, DocumentBatch, Step, build_steps, resolve_step
from corpusmill.filters.worker import FilterConfig, rule_table
from corpusmill.ingest.rows import MEANINGS as INGEST_REASONS
from corpusmill.pipeline.recipe import STAGES, stage_class
from corpusmill.pipeline.stage import load_object
from corpusmill.tokenize.planning import MEANINGS as TOKENS_REASONS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
#: Files outside of docs/ that are pages of the site, by the name of the page.
INCLUDED = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "guides/ray.md": "recipes/cluster/README.md",
    "security.md": "SECURITY.md",
}
#: Why a stage drops a document, for the stages whose rules have no thresholds.
REASONS = {"ingest": INGEST_REASONS, "dedup": DEDUP_REASONS, "tokens": TOKENS_REASONS}
FOLDERS = {"stages": "Stages", "steps": "Filter steps", "rules": "Filter rules", "commands": "Commands", "python": "Python"}


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds the files of INCLUDED and `llms.txt` to the site, and the written pages to its navigation."""
    from mkdocs.structure.files import File

    there = {file.src_uri: file.content_string for file in files.documentation_pages()}
    more = included(there)
    everything = dict(sorted({**there, **more}.items()))
    more |= {"llms.txt": overview(everything), "llms-full.txt": "\n\n".join(everything.values())}
    for name, text in more.items():
        files.append(File.generated(config, name, content=text))
    sections = [{title: [name for name in sorted(there) if f"reference/{folder}/" in name]} for folder, title in FOLDERS.items()]
    next(section for section in config.nav or [] if "Reference" in section)["Reference"] = ["reference/index.md", *sections]
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    return in_the_site(page.file.src_uri, markdown)


def in_the_site(name: str, text: str) -> str:
    """Returns a page of docs/ with its links to files of INCLUDED as the site has them."""
    for place, source in INCLUDED.items():
        text = text.replace(f"]({relpath(source, dirname(f'docs/{name}'))}", f"]({relpath(place, dirname(name) or '.')}")
    return text


def is_written(name: str) -> bool:
    """Whether this program writes a page of docs/."""
    return name == "recipes.md" or name.startswith("reference/")


def by_hand() -> dict[str, str]:
    """Returns the pages of docs/ that people write."""
    found = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
    return {name: path.read_text("utf-8") for name, path in found.items() if not is_written(name)}


def pages() -> dict[str, str]:
    """Returns all written pages, by their path in docs/."""
    written = {**recipes(), **stages(), **rules_and_steps(), **commands(), **python_objects(by_hand().values())}
    return {"reference/index.md": index(written), **written}


def write() -> None:
    """Writes the pages anew."""
    shutil.rmtree(DOCS / "reference", ignore_errors=True)
    for name, text in pages().items():
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(text, "utf-8")


def index(written: Mapping[str, str]) -> str:
    parts = ["# Reference", "These pages are written from the program (`make reference`)."]
    for folder, title in FOLDERS.items():
        found = [name for name in written if f"reference/{folder}/" in name]
        lines = [[f"[{title_of(written[name])}]({relpath(name, 'reference')})", sentence_of(written[name])] for name in found]
        parts += [f"## {title}", table(["page", "what it is"], lines)]
    return page(*parts)


def overview(everything: Mapping[str, str]) -> str:
    """Returns `llms.txt` (https://llmstxt.org): every page with its title and first sentence."""
    places = {name: re.sub(r"(^|/)index/$", r"\1", f"{name.removesuffix('.md')}/") or "./" for name in everything}
    lines = [f"- [{title_of(text)}]({places[name]}): {sentence_of(text)}" for name, text in everything.items()]
    return page("# corpusmill", f"> {first_part(corpusmill)}", "## Pages", "\n".join(lines))


def page(*parts: str) -> str:
    """Returns a page of its parts, between blank lines; empty ones are left out."""
    return "\n\n".join(filter(None, parts)) + "\n"


def title_of(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")


def sentence_of(text: str) -> str:
    """Returns the first sentence below a page's title, without links."""
    blocks = [block for block in text.split("\n\n")[1:] if re.match(r"[A-Za-z*`]", block) and not block.startswith("```")]
    plain = " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", blocks[0] if blocks else "").split())
    return re.split(r"(?<=\.) ", plain)[0]


def first_part(thing: object) -> str:
    """Returns the first paragraph of a docstring."""
    return (getdoc(thing) or "").partition("\n\n")[0]


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Returns a table in Markdown. Bars outside of code are escaped; inside, Markdown takes them as they are."""
    cells = [[re.sub(r"(`[^`]*`)|\|", lambda m: m[1] or "\\|", cell.replace("\n", " ")) for cell in line] for line in lines]
    head = list(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])


def linked(text: str) -> str:
    """Returns a docstring as Markdown, with links to papers."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text.replace("<", "&lt;"))


# ---- Recipes, and files at the repository's root


def recipes() -> dict[str, str]:
    about = "A recipe is YAML with a section for each stage. These come with the program; take the closest one and change it."
    parts = ["# Recipes", about]
    for path in sorted((ROOT / "recipes").rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        if path.parent.name != "cluster":
            parts += [f"## {path.stem}", f"`{path.relative_to(ROOT)}`", f"```yaml\n{path.read_text('utf-8').rstrip()}\n```"]
    return {"recipes.md": page(*parts)}


def included(there: Iterable[str]) -> dict[str, str]:
    """Returns the pages of INCLUDED. Their links to pages of the site are kept; of links to code the text stays."""
    places = {**{source: name for name, source in INCLUDED.items()}, **{f"docs/{name}": name for name in there}}
    written = {}
    for name, source in INCLUDED.items():
        text = (ROOT / source).read_text("utf-8")
        for link in re.finditer(r"\[([^]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)", text):
            place = places.get(normpath(f"{dirname(source) or '.'}/{link[2]}"))
            moved = f"[{link[1]}]({relpath(place, dirname(name) or '.')}{link[3] or ''})" if place else link[1]
            text = text.replace(link[0], moved)
        written[name] = text
    return written


# ---- Filter rules and steps


@cache
def examples_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "examples.yaml").read_text("utf-8"))
    return loaded


def step_of(name: str) -> Step:
    """Returns a step with the options under which its examples are measured."""
    return build_steps([resolve_step({name: examples_file()["steps"].get(name)})])[0].step


@cache
def stage_presets() -> list[tuple[str, list[StepRule]]]:
    """Returns each preset of the filter stage with its rules, FineWeb-2's once for each language."""
    languages = json.loads((ROOT / "filters" / "fineweb2.json").read_text("utf-8"))["languages"]
    sections = [{"preset": name} for name in PRESETS] + [{"preset": BY_LANGUAGE, "language": language} for language in languages]
    return [(section["preset"], rule_table(FilterConfig.model_validate(section))) for section in sections]


def rules_of(name: str) -> dict[str, list[tuple[str, Rule]]]:
    """Returns the rules of a step by name, each as the presets of the step, and then those of the whole stage, have it."""
    step, chosen = step_of(name), examples_file()["steps"].get(name)
    found: dict[str, list[tuple[str, Rule]]] = {}
    for preset, rules in (step.PRESETS or {json.dumps(chosen) if chosen else "default": step.rules}).items():
        for rule in rules:
            found.setdefault(rule.name, []).append((preset, rule))
    for preset, decisions in stage_presets():
        for decided in decisions:
            if decided.step == name and decided.rule.name in found:
                found[decided.rule.name].append((preset, decided.rule))
    return found


def measured(name: str) -> dict[str, tuple[str, Any]]:
    """Runs a step on its examples. Returns for each rule the text, as its page shows it, and the value that the rule compares.

    Raises AssertionError for an example that does not fail its rule.
    """
    step = step_of(name)
    examples = [(item["text"], rule) for item in examples_file()["examples"] for rule in step.rules if rule.name in item["rules"]]
    if not examples:
        return {}
    texts = pa.array([text if isinstance(text, str) else text["repeat"] * text["times"] for text, _ in examples], pa.large_string())
    step.setup()
    columns = step.measure(DocumentBatch(pa.table({"text": texts}), texts, "words")).columns
    found = {}
    for place, (text, rule) in enumerate(examples):
        shown = text if isinstance(text, str) else f"{text['repeat']!r}, {text['times']:,} times"
        values = pa.array(columns[rule.column])
        assert rule.failing(values)[place], f"docs/examples.yaml: this text does not fail {rule.name}: {shown}"
        found[rule.name] = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in shown), values[place].as_py()
    return found


def rules_and_steps() -> dict[str, str]:
    written = {}
    for name in STEPS:
        kind: type[Step] = load_object(STEPS[name])
        doc, module = linked(getdoc(kind.Config) or ""), linked(getdoc(sys.modules[kind.__module__]) or "")
        source = doc if "arXiv" in doc else module.split("\n\n")[0]
        parts = [f"# {name}", doc, "## Options", options(kind.Config.model_json_schema(), "")]
        if name in OTHERS:
            parts.append("Its columns and rules are those of the code or the model that the recipe names.")
        else:
            step, examples, rules = step_of(name), measured(name), rules_of(name)
            parts += ["## Columns", table(["column", "type"], [[f"`{column}`", str(type_)] for column, type_ in step.columns.items()])]
            if rules:
                lines = [[f"[{rule}](../rules/{rule}.md)", *verdict(step, uses[0][1])] for rule, uses in rules.items()]
                parts += ["## Rules", table(["rule", "fails where", "in words"], lines)]
            for rule, uses in rules.items():
                written[f"reference/rules/{rule}.md"] = rule_page(name, step, uses, examples.get(rule), source)
        parts += ["## How it measures", module]
        written[f"reference/steps/{name}.md"] = page(*parts)
    return written


def verdict(step: Step, rule: Rule) -> tuple[str, str]:
    """Returns when a document fails a rule: as a comparison, and in words."""
    limit = ", ".join(rule.threshold) if isinstance(rule.threshold, tuple) else rule.threshold
    words = meaning(step.meanings.get(rule.column, ""), rule.comparison, rule.threshold)
    return f"`{rule.column} {rule.comparison} {limit}`", linked(words)


def rule_page(name: str, step: Step, uses: list[tuple[str, Rule]], example: tuple[str, Any] | None, source: str) -> str:
    """Returns the page of a rule: what it measures, from where, its thresholds by preset, a text that fails it, and how to change it."""
    first, chosen = uses[0][1], examples_file()["steps"].get(name)
    condition, words = verdict(step, first)
    facts = []
    for column in dict.fromkeys(rule.column for _, rule in uses):
        ratio = " / ".join(f"`{part}`" for part in getattr(step, "STATISTICS", {}).get(column, ())[:2])
        facts.append(f"* Measured: `{column}`" + (f", which is {ratio}" if ratio else ""))
    if example is None:
        failing = [examples_file()["without"][first.name]]
    else:
        shown, value = example
        figure = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else f"`{value}`"
        failing = [f"```text\n{shown or '(no text)'}\n```", f"Measured: `{first.column}` is {figure}, so it fails."]
        failing += [f"The step has the options `{json.dumps(chosen)}` here."] if chosen else []
    retune = f"corpusmill retune RUN --set filter.thresholds.{first.name}=off --dry-run"
    return page(
        f"# {first.name}", f"A document fails: **{words}**." if words else f"A document fails where {condition}.",
        "\n".join([*facts, f"* Step: [{name}](../steps/{name}.md)", f"* From: {source}"]),
        "## Thresholds", thresholds(step, uses), "## A document that fails", *failing,
        "## Decide otherwise", f"```\ncorpusmill sample RUN --rule {first.name} --near\n{retune}\n```",
        "The first command shows the documents nearest to the threshold, the second what would come back without the rule.",
        "[Thresholds](../../guides/thresholds.md) says how to choose one.",
    )  # fmt: skip


def thresholds(step: Step, uses: list[tuple[str, Rule]]) -> str:
    """Returns the table of a rule's thresholds: presets that agree share a line, and so do all languages of FineWeb-2."""
    by_language = sorted({rule.threshold for preset, rule in uses if preset == BY_LANGUAGE})
    alike: dict[tuple[str, str], list[str]] = {}
    for preset, rule in uses:
        if preset != BY_LANGUAGE or len(by_language) == 1:
            alike.setdefault(verdict(step, rule), []).append(f"`{preset}`")
    lines = [[", ".join(dict.fromkeys(presets)), *condition] for condition, presets in alike.items()]
    if len(by_language) > 1:
        between = "" if isinstance(by_language[0], tuple) else f", from {by_language[0]} to {by_language[-1]}"
        lines.append([f"`{BY_LANGUAGE}`", f"one for each language{between}", ""])
    return table(["presets of the step and of the stage", "fails where", "in words"], lines)


# ---- Stages: the keys of a section, from its JSON schema

TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "object": "mapping", "null": "null"}
LIMITS = {"minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}", "exclusiveMaximum": "below {}"}


def stages() -> dict[str, str]:
    written = {}
    for name in STAGES:
        kind = stage_class(name)
        schema = kind.Config.model_json_schema()
        parts = [f"# {name}", linked(first_part(sys.modules[kind.__module__])), f"How it works: [{name}](../../stages/{name}.md)."]
        todo = [(name, schema)]
        for place, section in todo:  # the list grows meanwhile
            parts += [f"## {place}", linked(section.get("description", "").partition("\n\n")[0]), options(section, place)]
            inner = {key: section_of(option) for key, option in section.get("properties", {}).items()}
            todo += [(f"{place}.{key}", schema["$defs"][found]) for key, found in inner.items() if found]
        if name in REASONS:
            parts += ["## Why it drops a document", table(["rule", "reason"], [[f"`{rule}`", why] for rule, why in REASONS[name].items()])]
        written[f"reference/stages/{name}.md"] = page(*parts)
    return written


def options(section: Mapping[str, Any], place: str) -> str:
    """Returns the table of a section's keys. A key that holds a section is a link to it. `place`: the name of this section."""
    lines = []
    for key, option in section.get("properties", {}).items():
        inner = section_of(option)
        default = option.get("default")
        link = f"[`{key}`](#{f'{place}{key}'.replace('.', '')})" if inner and place else f"`{key}`"
        shown = "" if inner and not isinstance(default, list) else f"`{json.dumps(default, ensure_ascii=False)}`"
        shown = "needed" if key in section.get("required", ()) else shown
        lines.append([link, type_of(option), shown, linked(option.get("description", ""))])
    return table(["key", "type", "default", "meaning"], lines) if lines else "It has no options."


def section_of(option: Mapping[str, Any]) -> str | None:
    """Returns the name of the section that an option holds: itself, in a list, or instead of null. None for a value."""
    for part in (option, option.get("items") or {}, *option.get("anyOf", ()), *option.get("allOf", ())):
        if "$ref" in part:
            return str(part["$ref"]).rpartition("/")[2]
    return None


def type_of(option: Mapping[str, Any]) -> str:
    """Returns the type of an option in words."""
    if "$ref" in option or "allOf" in option:
        return "section below"
    if "anyOf" in option:
        return " or ".join(dict.fromkeys(type_of(part) for part in option["anyOf"]))
    if "enum" in option or "const" in option:
        return ", ".join(f"`{value}`" for value in option.get("enum", [option.get("const")]))
    if option.get("type") == "array":
        return f"list of: {type_of(option['items'])}" if option.get("items") else "list"
    limits = " ".join(words.format(f"{option[limit]:,}") for limit, words in LIMITS.items() if limit in option)
    return f"{TYPES.get(option.get('type', ''), 'value')} {limits}".strip()


# ---- Commands, and Python


def commands(group: Any = None, path: tuple[str, ...] = ("corpusmill",)) -> dict[str, str]:
    """Returns a page for each command that --help shows: what it is for, and its own --help."""
    written = {}
    for name, command in (group or typer.main.get_command(app)).commands.items():
        words = (*path, name)
        if hasattr(command, "commands"):
            written |= commands(command, words)
        elif not command.hidden:
            context = typer.Context(command, info_name=" ".join(words), terminal_width=110)
            about = linked((command.help or "").partition("\n")[0])
            text = f"```text\n{command.get_help(context).strip()}\n```"
            written[f"reference/commands/{'-'.join(words[1:])}.md"] = page(f"# {' '.join(words)}", about, text)
    return written


def python_objects(by_hand: Iterable[str]) -> dict[str, str]:
    """Returns a page for each name of the package, and for each object that an example of another page imports."""
    places = dict.fromkeys(corpusmill.__all__, "corpusmill")
    for module, names in re.findall(r"^from (corpusmill\.\S+) import ([\w, ]+)", "\n".join(by_hand), re.MULTILINE):
        places = {**dict.fromkeys(names.strip().split(", "), module), **places}
    written = {}
    for name, module in sorted(places.items()):
        found = getattr(import_module(module), name)
        kind = "-class" if isclass(found) else ""  # not every file system tells Run from run
        written[f"reference/python/{name}{kind}.md"] = page(
            f"# {name}", described(first_part(found)), f"```python\nfrom {module} import {name}\n\n{called(name, found)}\n```",
            described((getdoc(found) or "").partition("\n\n")[2]), *(members(found) if isclass(found) else ()),
        )  # fmt: skip
    return written


def members(kind: type) -> Iterable[str]:
    """Yields the parts of a page about the public methods and properties of a class that have a docstring, in their order."""
    for name, member in vars(kind).items():
        found = getattr(kind, name) if isinstance(member, classmethod | staticmethod) else member
        if (
            not name.startswith("_")
            and getdoc(member)
            and (isfunction(member) or isinstance(member, property | classmethod | staticmethod))
        ):
            yield f"## {name}"
            yield "" if isinstance(member, property) else f"```python\n{called(name, found)}\n```"
            yield described(getdoc(found) or "")


def called(name: str, found: Any) -> str:
    """Returns how a function, method or class is called, a parameter a line where there are many."""
    try:
        given = (
            re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])|(?<=[\[ (])pathlib\._?\w+\.", "", str(signature(found)))
            .replace("(self, ", "(")
            .replace("(self)", "()")
        )
    except ValueError:
        return name
    shown = f"{name}{given}"
    if len(shown) <= 100:
        return shown
    inner, _, end = given.removeprefix("(").rpartition(")")
    return f"{name}(\n    " + re.sub(r", (?=\*|\w+[:=])(?![^\[]*\])", ",\n    ", inner) + f",\n){end}"


def described(doc: str) -> str:
    """Returns a docstring with sections (Args, Returns, Raises, Examples) as Markdown."""
    parts = []
    for block in re.split(r"\n\n(?=\S)", doc):
        head, _, body = block.partition("\n")
        if not re.fullmatch(r"(Args|Returns|Yields|Raises|Examples|Attributes):", head):
            parts.append(linked(block))
            continue
        body = dedent(body)
        if head in ("Args:", "Raises:", "Attributes:"):
            entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=\S)", body)]
            body = "\n".join("* " + re.sub(r"^(\w+):", r"`\1`:", linked(entry)) for entry in entries)
        parts += [f"**{head[:-1]}**", body]
    return "\n\n".join(parts)


if __name__ == "__main__":
    os.environ.update({"COLUMNS": "110", "NO_COLOR": "1"})
    write()
