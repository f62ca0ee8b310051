"""`corpusmill card`: writes README.md and croissant.json of a run's documents. Nothing is measured anew; equal runs have equal cards."""

import re
from pathlib import Path
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.report.card import rows
from corpusmill.report.card.contents import Contents, iso_codes, read_contents
from corpusmill.report.card.croissant import MEANINGS, croissant
from corpusmill.report.card.facts import rule_rows, tokenizer_rows
from corpusmill.report.card.limits import limits, step_options
from corpusmill.report.markdown import environment, front_matter
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.stale import refuse_stale

CARD, CROISSANT = "README.md", "croissant.json"
#: By this a card is known to be one of ours, which may be written again.
MARK = "<!-- written by corpusmill card -->"
#: Upper ends of the hub's size categories, and how it writes them.
SIZES = ((3, "1K"), (4, "10K"), (5, "100K"), (6, "1M"), (7, "10M"), (8, "100M"), (9, "1B"), (10, "10B"), (11, "100B"), (12, "1T"))
WARNINGS = 50


def write_card(
    run: str, output: str | None = None, name: str | None = None, licence: str | None = None, description: str | None = None,
    although_stale: bool = False,
) -> list[str]:  # fmt: skip
    """Writes both files into `output` (the run's folder by default); returns their paths. `description`: a file of Markdown.

    Raises InputError where `run` is no run or has no documents, where another README.md or croissant.json would be lost, and where the
    documents are stale, unless `although_stale`: then both files say so first.
    """
    if licence is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        raise InputError(f"--licence {safe_line(licence, 80)}: expected the id of a licence, for example cc-by-4.0 or odc-by.")
    told = _read_description(description)
    summary = read_summary(run, deep=False)
    contents = read_contents(summary.reader)
    stale = refuse_stale(summary.reader, contents.stage, although_stale)
    title = safe_line(name or rows.run_name(summary.reader), 200)
    target = Storage(output or run)
    ours = target.exists(CARD) and MARK.encode() in target.read_bytes(CARD)
    for path in (CARD, CROISSANT):
        if target.exists(path) and not ours:
            raise InputError(f"{target.path(path)}: this file is not of corpusmill card, so it is left as it is; name another --output.")
    target.write_bytes(CARD, render(summary, contents, title, licence, told, stale).encode("utf-8", "replace"))
    version = str(dict(rows.versions(summary.reader)).get("corpusmill", ""))
    about = " ".join(filter(None, [stale, _abstract(summary, contents)]))
    target.write_bytes(CROISSANT, croissant(contents, title, about, _languages(summary, contents), licence, version))
    return [target.path(CARD), target.path(CROISSANT)]


def _read_description(path: str | None) -> str:
    if path is None:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a description is UTF-8 text, and byte {error.start} is not.") from error


def render(summary: Summary, contents: Contents, title: str, licence: str | None, description: str, stale: str | None = None) -> str:
    """The whole of README.md."""
    reader = summary.reader
    pii = rows.pii_rows(summary)
    facts = {
        "mark": MARK, "title": title, "abstract": _abstract(summary, contents), "description": description, "licence": licence,
        "stale": stale, "unfinished": _unfinished(summary, contents), "contents": contents, "summary": summary, "meanings": MEANINGS,
        "run": rows.run_name(reader), "sources": rows.source_rows(contents), "hosts": rows.counted(contents.hosts),
        "languages": rows.counted(contents.languages) if contents.languages else [],
        "rules": {name: rule_rows(decisions) for name, decisions in summary.decisions.items() if name != "dedup"},
        "urls": rows.url_rows(reader), "copies": rows.copy_rows(summary), "pii": pii,
        "classifiers": rows.classifier_rows(summary.classifiers), "sets": rows.set_names(reader),
        "searched": [task for task in summary.benchmarks.tasks if task.searched], "tokenizer": tokenizer_rows(summary),
        "recipe": rows.recipe(reader), "command": rows.command(reader, contents.stage), "versions": rows.versions(reader),
        "provenance": rows.provenance_rows(reader), "limits": limits(summary, contents, pii),
        "warnings": _warnings(summary), "most_warnings": WARNINGS,
    }  # fmt: skip
    body: str = environment("corpusmill.report.card").get_template("card.md.jinja").render(facts)
    return front_matter(header(summary, contents, title, licence)) + body


def header(summary: Summary, contents: Contents, title: str, licence: str | None) -> dict[str, Any]:
    """What the dataset hub reads of a card (https://huggingface.co/docs/hub/datasets-cards)."""
    return {
        "pretty_name": title,
        "license": licence or "other",
        **({} if licence else {"license_name": "not-stated"}),
        "language": _languages(summary, contents),
        "size_categories": [size_category(contents.documents)],
        "task_categories": ["text-generation"],
        "tags": ["corpusmill", "pretraining", "croissant"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"{contents.stage}/data/*.parquet"}],
                "default": True,
            }
        ],
    }


def size_category(documents: int) -> str:
    """The hub's name for so many documents."""
    lower = ""
    for digits, upper in SIZES:
        if documents < 10**digits:
            return f"{lower}<n<{upper}" if lower else f"n<{upper}"
        lower = upper
    return f"n>{lower}"


def _languages(summary: Summary, contents: Contents) -> list[str]:
    options = step_options(summary.reader).get("language") or {}
    return iso_codes(contents.languages, lid_176=not options.get("model")) if contents.languages else []


def _abstract(summary: Summary, contents: Contents) -> str:
    """One sentence: what, how much, from where and when."""
    hosts = len(contents.hosts)
    characters = next((row.chars_out for row in summary.rows if row.stage == contents.stage), None)
    parts = [f"{contents.documents:,} documents"]
    parts += [f"of {characters:,} characters"] if characters else []
    parts.append(f"from {hosts:,} {'host' if hosts == 1 else 'hosts'} and {len(contents.sources):,} crawl files")
    if contents.first and contents.last:
        same = contents.first == contents.last
        parts.append(f"fetched on {contents.first}" if same else f"fetched from {contents.first} to {contents.last}")
    words = {"filter": "filtered", "dedup": "deduplicated"}
    done = [word for stage, word in words.items() if summary.reader.stages[stage].status == "complete"]
    return " ".join(parts) + (f", {' and '.join(done)}" if done else "") + "."


def _warnings(summary: Summary) -> list[str]:
    """What the run warned of, without what it says of trainings."""
    later = tuple(f"{name}: " for name in summary.reader.stages if name not in rows.MAKING)
    return [rows.shown_sentence(sentence) for sentence in summary.warnings if not sentence.startswith(later)]


def _unfinished(summary: Summary, contents: Contents) -> list[str]:
    """Why the card is not that of a finished run; nothing where it is."""
    found = [] if contents.finished else [f"The stage {contents.stage} is not finished, and these are only the documents that it has done."]
    wanted = summary.reader.description.get("recipe")
    after = list(summary.reader.stages)[: list(summary.reader.stages).index("dedup") + 1]
    missing = [name for name in after if isinstance(wanted, dict) and name in wanted and summary.reader.stages[name].status != "complete"]
    late = [name for name in missing if name != contents.stage]
    return found + ([f"The recipe goes on with stages that have not run to their end: {', '.join(late)}."] if late else [])
