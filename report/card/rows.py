"""Rows of a data card's tables that no other page has: origins, URL lists, evidence for copies, evaluation sets, provenance."""

import re
import shlex
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from corpusmill.filters.pii import KINDS
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.redact import bare, walked
from corpusmill.pipeline.storage import is_remote
from corpusmill.report.card.contents import Contents
from corpusmill.report.card.facts import Row, dedup_rows
from corpusmill.report.queries.classifiers import Classifier, Label, interval, value
from corpusmill.report.queries.summary import Summary
from corpusmill.report.queries.values import PersonalKind
from corpusmill.report.read import RunReader
from corpusmill.report.tables import number

#: Rows of a table of crawl files, hosts or languages; the others come together in one.
SHOWN = 25
#: The stages that make documents and tokens.
MAKING = ("ingest", "filter", "dedup", "tokenizer", "tokens")
#: A path of this machine in a sentence, of two names or more.
_PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^\s/'\"]+)+/[^\s/'\":;,]+")


def counted(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent names, and all others in one row."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[SHOWN:]
    return ordered[:SHOWN] + ([(f"{len(rest):,} others", sum(count for _, count in rest))] if rest else [])


def shown_path(path: str) -> str:
    """A path for people elsewhere: of a file of this machine its name alone, of a URL neither a user nor a query."""
    return PurePosixPath(path).name or path if path.startswith(("/", "~/", "file://")) else bare(path)


def shown_sentence(sentence: str) -> str:
    """A sentence whose paths are for people elsewhere."""
    return _PATH.sub(lambda found: shown_path(found[0]), bare(sentence))


def source_rows(contents: Contents) -> list[tuple[str, int, int]]:
    """Crawl files: (name, records read, documents here), those with most documents first."""
    every = Counter({name: contents.sources[name] for name in {*contents.records, *contents.sources}})
    ordered = sorted(every, key=lambda name: (-every[name], -contents.records[name], name))
    rows = [(shown_path(name), contents.records[name], every[name]) for name in ordered[:SHOWN]]
    rest = ordered[SHOWN:]
    if rest:
        rows.append((f"{len(rest):,} others", sum(contents.records[n] for n in rest), sum(every[n] for n in rest)))
    return rows


def url_rows(reader: RunReader) -> list[Row]:
    """Which lists of URLs were applied as records were read; what each rule left out is in the table of ingest's rules."""
    options = reader.settings("ingest").get("url_filter")
    if not isinstance(options, dict):
        return []
    rows = [("compared as", str(options.get("preset")))]
    rows.append(("lists of 4.56 million domains and of words (those of datatrove)", "yes" if options.get("shipped_lists") else "no"))
    lists = ((name, options.get(name)) for name in ("domains", "urls", "allow"))
    words = ((name, options.get(name)) for name in ("hard_words", "soft_words", "subwords"))
    rows += [(f"further lists: {name}", ", ".join(PurePosixPath(bare(str(file))).name for file in files)) for name, files in lists if files]
    return rows + [(f"further {name.replace('_', ' ')}", number(len(some))) for name, some in words if some]


def pii_rows(summary: Summary) -> list[tuple[str, PersonalKind]]:
    """Personal data and secrets by kind, in words and as the report counts them; none where the filter stage did not look."""
    words = {kind.column: kind.description for kind in KINDS}
    found = summary.personal.kinds if summary.personal else []
    return [(words.get(each.column, each.kind), each) for each in found]


def copy_rows(summary: Summary) -> list[Row]:
    """What `dedup_rows` has, and how the copies that were removed are known to be copies."""
    rows, found = dedup_rows(summary), summary.duplicates
    if found is None:
        return rows
    clusters = found.clusters
    rows += [("documents of the largest group", number(max(clusters.sizes, default=0)))]
    evidence = ", ".join(f"{name} {number(count)}" for name, count in sorted(clusters.verified.items()))
    return rows + ([("known to be copies by", evidence)] if evidence else [])


def classifier_rows(found: list[Classifier]) -> list[tuple[str, ...]]:
    """(classifier, trained on, AUC in the test part, AUC on unseen sources, precision, recall) of each label."""
    return [(_label_name(each, label), *_quality(label)) for each in found for label in each.labels]


def _label_name(each: Classifier, label: Label) -> str:
    return each.name if len(each.labels) == 1 else f"{each.name}: {label.name}"


def _quality(label: Label) -> tuple[str, ...]:
    test, unseen = label.test, label.unseen
    if test is None:
        return ("not known", "not measured", "not measured", "not measured", "not measured")
    at = test["at_threshold"]
    return (
        f"{label.yes:,} yes, {label.no:,} no", interval(test["roc_auc"]), interval(unseen["roc_auc"]) if unseen else "not measured",
        f"{value(at['precision'])} at {label.threshold:.3g}", value(at["recall"]),
    )  # fmt: skip


def set_names(reader: RunReader) -> list[str]:
    """The evaluation sets that the recipe has the documents searched for, by the names or the files that it gives."""
    options = reader.settings("dedup").get("contamination")
    sets = options.get("sets") if isinstance(options, dict) else None
    named = [(one.get("name") or one.get("path")) if isinstance(one, dict) else one for one in sets or ()]
    return [shown_path(str(name)) for name in named]


def provenance_rows(reader: RunReader) -> list[Row]:
    """A digest of the code that made each stage; the manifests say what stands behind it."""
    rows = []
    for name in MAKING:
        codes = sorted({task.code for task in reader.stages[name].tasks})
        if codes:
            rows.append((f"code of {name}", digest(codes)[:16]))
    return rows


def recipe(reader: RunReader) -> str:
    """The recipe with all its defaults, as YAML: the stages up to the documents, and those of the tokens where the run has them.
    Paths in it are for people elsewhere."""
    import yaml

    given = reader.description.get("recipe")
    names = [name for name in MAKING if reader.stages[name].status != "missing"] if isinstance(given, dict) else []
    kept = {name: given[name] for name in names if name in given} if isinstance(given, dict) else {}
    return yaml.safe_dump(walked(kept, shown_path), sort_keys=False, allow_unicode=False, width=120).rstrip() if kept else ""


def command(reader: RunReader, last: str) -> str:
    """The command that makes the documents again."""
    inputs = reader.description.get("inputs")
    paths = " ".join(shlex.quote(shown_path(str(path))) for path in inputs) if isinstance(inputs, list) else "INPUT"
    return f"corpusmill run recipe.yaml {paths} --output RUN --to {last}"


def run_name(reader: RunReader) -> str:
    """What the run's folder is called."""
    root = reader.storage.root
    return (PurePosixPath(root.partition("://")[2]) if is_remote(root) else PurePosixPath(root)).name or "corpus"


def versions(reader: RunReader) -> list[tuple[str, Any]]:
    found = reader.description.get("versions")
    return sorted(found.items()) if isinstance(found, dict) else []
