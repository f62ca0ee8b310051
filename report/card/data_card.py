"""`corpusmill card`: writes README.md for a run's documents. Nothing is measured again; equal runs have equal cards."""

import re
import shlex
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from corpusmill.filters.pii import KINDS
from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.redact import bare, walked
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.storage import Storage
from corpusmill.report.card.contents import Contents, iso_codes, read_contents
from corpusmill.report.card.facts import Row, dedup_rows, rule_rows, tokenizer_rows, toxic
from corpusmill.report.host import NONE
from corpusmill.report.markdown import environment, front_matter
from corpusmill.report.queries.classifiers import Label, UsedClassifier, interval, value
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader
from corpusmill.report.stale import refuse_stale
from corpusmill.report.tables import number

CARD = "README.md"
#: The meanings of the columns that every run has (pipeline/schemas.py), and of those that this project's steps and stages append.
MEANINGS = {
    "id": "32 hex digits made of the document's origin and its content",
    "url": "where the page was",
    "timestamp": "when the crawl fetched it, ISO 8601",
    "source": "the crawl file that it comes from",
    "offset": "where its record begins in the crawl file: bytes, or the row of a table",
    "length": "bytes of the record in the crawl file",
    "text": "the main text",
    "title": "the title that the page gives itself",
    "author": "the author that the page names",
    "date": "the day of publication that the page names, YYYY-MM-DD",
    "canonical_url": "the address that the page calls its own",
    "page_type": "what kind of page it was: article, documentation, service, forum, collection, listing or product",
    "page_type_score": "how sure that type is, 0 to 1",
    "rights": "what the page says about its use: the signal, where it stands and what it says",
    "license": "the licence that the page names, in the words of SPDX",
    "metadata": "a JSON object of whatever else the input had",
    "language": "the most likely language, as a classifier judges",
    "language_score": "how sure the classifier of languages is, 0 to 1",
    "language_script": "the script, ISO 15924",
    "quality": "score of the quality classifier, 0 to 1",
    "toxicity": "score of the toxicity classifier, 0 to 1",
    "rewritten": "1 where a language model wrote the document, 0 for documents of the crawl",
    "rewritten_from": "the id of the document from which it was written",
    "rewritten_as": "the kind of rewriting, by the name of its step",
    "rewritten_by": "the language model",
    "rewritten_prompt": "a digest of the prompt",
    "cluster_size": "how many copies of it the run had, itself included",
    "cluster_id": "the same for all copies of a document",
}
#: Licences that the hub knows by an id which is none of SPDX (https://huggingface.co/docs/hub/repositories-licenses).
OF_THE_HUB = ("bsd", "c-uda", "cc", "gfdl", "gpl", "lgpl", "odbl", "odc-by", "openmdw-1.0", "openrail", "other", "pddl", "unknown")
#: Where `corpusmill push` puts the removed documents of each stage.
REMOVED_FILES = "removed/*/*.parquet"
#: Marks a card that this command wrote and may overwrite.
MARK = "<!-- written by corpusmill card -->"
#: Upper ends of the hub's size categories, as powers of ten and as the hub writes them.
SIZES = ((3, "1K"), (4, "10K"), (5, "100K"), (6, "1M"), (7, "10M"), (8, "100M"), (9, "1B"), (10, "10B"), (11, "100B"), (12, "1T"))
WARNINGS = 50


def write_card(
    run: str, output: str | None = None, name: str | None = None, licence: str | None = None, description: str | None = None,
    although_stale: bool = False,
) -> str:  # fmt: skip
    """Writes the card into `output` (the run folder by default) and returns its path. `description`: a file of Markdown.

    Raises InputError if `run` is not a run or has no documents, if another README.md would be overwritten, and if the documents are stale.
    With `although_stale` the card of stale documents is written, and begins with a warning.
    """
    summary = read_summary(run, deep=False)
    _, page = make_card(summary, name or summary.reader.name, licence, description, although_stale)
    target = Storage(output or run)
    if target.exists(CARD) and MARK.encode() not in target.read_bytes(CARD):
        raise InputError(
            f"{target.path(CARD)}: corpusmill card did not write this file and does not overwrite it; choose another --output."
        )
    target.write_bytes(CARD, page)
    return target.path(CARD)


def _is_licence(name: str) -> bool:
    """Tells whether it is one licence of SPDX (case does not count) or of the hub."""
    if name in OF_THE_HUB:
        return True
    try:
        return " " not in canonicalize_license_expression(name)
    except InvalidLicenseExpression:
        return False


def make_card(
    summary: Summary, title: str, licence: str | None, description: str | None, although_stale: bool,
    repository: str | None = None, removed: bool = False,
) -> tuple[Contents, bytes]:  # fmt: skip
    """Returns what the documents are, and the content of README.md.

    `description`: a file of Markdown. `repository`: where on the hub the documents will be. `removed`: the removed documents will be
    beside them, in `removed/`. Raises InputError if the run has no documents, if they are stale (`although_stale`: the card begins with
    a warning), and if the licence is no id.
    """
    if licence is not None and not _is_licence(licence):
        raise InputError(
            f"--licence {safe_line(licence, 80)}: expected an id of SPDX or of the Hugging Face hub, for example cc-by-4.0 or odc-by;"
            " other stands for any other licence."
        )
    own_text = _read_description(description)
    with Run(summary.reader) as opened:
        contents = read_contents(opened)
    stale = refuse_stale(summary.reader, contents.stage, although_stale)
    page = render(summary, contents, safe_line(title, 200), licence, own_text, stale, repository, removed)
    return contents, page.encode("utf-8", "replace")


def _read_description(path: str | None) -> str:
    if path is None:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a description is UTF-8 text, and byte {error.start} is not.") from error


def render(
    summary: Summary, contents: Contents, title: str, licence: str | None, description: str, stale: str | None = None,
    repository: str | None = None, removed: bool = False,
) -> str:  # fmt: skip
    """Returns the content of README.md."""
    reader = summary.reader
    pii = pii_rows(summary)
    facts = {
        "mark": MARK, "title": title, "abstract": _abstract(summary, contents), "description": description, "licence": licence,
        "stale": stale, "unfinished": unfinished(summary, contents), "contents": contents, "summary": summary, "meanings": MEANINGS,
        "repository": repository or "OWNER/NAME", "removed": removed,
        "run": reader.name, "sources": source_rows(contents), "hosts": counted(contents.hosts),
        "properties": {
            "language": counted(contents.languages or Counter()), "page type": counted(contents.page_types or Counter()),
            "licence": counted(contents.licences or Counter()), "reservation": counted(contents.reservations or Counter()),
        },
        "rules": {name: rule_rows(decisions) for name, decisions in summary.decisions.items() if name != "dedup"},
        "urls": url_rows(reader), "copies": copy_rows(summary), "pii": pii,
        "classifiers": classifier_rows(summary.classifiers), "sets": set_names(reader),
        "searched": [task for task in summary.benchmarks.tasks if task.searched], "tokenizer": tokenizer_rows(summary),
        "recipe": recipe(reader), "command": command(reader, contents.stage), "versions": versions(reader),
        "asked": [f"{row['step']}: {row['model']}" for row in summary.language_model.steps.rows] if summary.language_model else [],
        "provenance": provenance_rows(reader), **limit_facts(summary, contents, pii),
        "warnings": _warnings(summary), "most_warnings": WARNINGS,
    }  # fmt: skip
    body: str = environment("corpusmill.report.card").get_template("card.md.jinja").render(facts)
    return front_matter(header(contents, title, licence, removed)) + body


def header(contents: Contents, title: str, licence: str | None, removed: bool = False) -> dict[str, Any]:
    """Returns the header that the dataset hub reads (https://huggingface.co/docs/hub/datasets-cards)."""
    configs: list[dict[str, Any]] = [
        {"config_name": "default", "data_files": [{"split": "train", "path": f"{contents.stage}/data/*.parquet"}], "default": True}
    ]
    if removed:
        configs.append({"config_name": "removed", "data_files": [{"split": "train", "path": REMOVED_FILES}]})
    return {
        "pretty_name": title,
        "license": licence or "other",
        **({} if licence else {"license_name": "not-stated"}),
        "language": iso_codes(contents.languages) if contents.languages else [],
        "size_categories": [size_category(contents.documents)],
        "task_categories": ["text-generation"],
        "tags": ["corpusmill", "pretraining"],
        "configs": configs,
    }


def size_category(documents: int) -> str:
    """Returns the hub's size category for a number of documents."""
    lower = ""
    for digits, upper in SIZES:
        if documents < 10**digits:
            return f"{lower}<n<{upper}" if lower else f"n<{upper}"
        lower = upper
    return f"n>{lower}"


def _abstract(summary: Summary, contents: Contents) -> str:
    """Returns one sentence: how many documents, of which size, from which crawl and time."""
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
    """Returns the run's warnings, without those about trainings."""
    later = tuple(f"{name}: " for name in summary.reader.stages if name not in MAKING)
    return [shown_sentence(sentence) for sentence in summary.warnings if not sentence.startswith(later)]


def unfinished(summary: Summary, contents: Contents) -> list[str]:
    """Returns sentences on why the run is not finished; none where it is."""
    found = [] if contents.finished else [f"The stage {contents.stage} is not finished, and these are only the documents that it has done."]
    wanted = summary.reader.description.get("recipe")
    after = list(summary.reader.stages)[: list(summary.reader.stages).index("dedup") + 1]
    missing = [name for name in after if isinstance(wanted, dict) and name in wanted and summary.reader.stages[name].status != "complete"]
    late = [name for name in missing if name != contents.stage]
    return found + ([f"The recipe goes on with stages that have not run to their end: {', '.join(late)}."] if late else [])


# ---- rows of its tables ------------------------------------------------------------------------------

#: Rows of a table of crawl files, hosts or languages; one more row adds up the others.
SHOWN = 25
#: The stages that make documents and tokens.
MAKING = ("ingest", "filter", "dedup", "tokenizer", "tokens")
#: A local path of at least two names in a sentence.
_PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^\s/'\"]+)+/[^\s/'\":;,]+")


def counted(counts: Counter[str]) -> list[tuple[str, int]]:
    """Returns the most frequent names, and all others in one row."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[SHOWN:]
    return ordered[:SHOWN] + ([(f"{len(rest):,} others", sum(count for _, count in rest))] if rest else [])


def shown_path(path: str) -> str:
    """Returns a path without private parts: of a local file only the name, of a URL neither user nor query."""
    return PurePosixPath(path).name or path if path.startswith(("/", "~/", "file://")) else bare(path)


def shown_sentence(sentence: str) -> str:
    """Returns a sentence with its paths as `shown_path` gives them."""
    return _PATH.sub(lambda found: shown_path(found[0]), bare(sentence))


def source_rows(contents: Contents) -> list[tuple[str, int, int]]:
    """Returns crawl files as (name, records read, documents here), those with the most documents first."""
    every = Counter({name: contents.sources[name] for name in {*contents.records, *contents.sources}})
    ordered = sorted(every, key=lambda name: (-every[name], -contents.records[name], name))
    rows = [(shown_path(name), contents.records[name], every[name]) for name in ordered[:SHOWN]]
    rest = ordered[SHOWN:]
    if rest:
        rows.append((f"{len(rest):,} others", sum(contents.records[n] for n in rest), sum(every[n] for n in rest)))
    return rows


def url_rows(reader: RunReader) -> list[Row]:
    """Returns the URL lists that ingest applied. The table of ingest's rules has the numbers."""
    options = reader.settings("ingest").get("url_filter")
    if not isinstance(options, dict):
        return []
    rows = [("compared as", str(options.get("preset")))]
    rows.append(("lists of 4.56 million domains and of words (those of datatrove)", "yes" if options.get("shipped_lists") else "no"))
    lists = ((name, options.get(name)) for name in ("domains", "urls", "allow"))
    words = ((name, options.get(name)) for name in ("hard_words", "soft_words", "subwords"))
    rows += [(f"further lists: {name}", ", ".join(PurePosixPath(bare(str(file))).name for file in files)) for name, files in lists if files]
    return rows + [(f"further {name.replace('_', ' ')}", number(len(some))) for name, some in words if some]


def pii_rows(summary: Summary) -> list[tuple[str, dict[str, Any]]]:
    """Returns the kinds of personal data and secrets with their counts; empty where the filter stage did not search for them."""
    words = {kind.column: kind.description for kind in KINDS}
    found = summary.personal.kinds if summary.personal else []
    return [(words.get(each["column"], each["kind"]), each) for each in found]


def copy_rows(summary: Summary) -> list[Row]:
    """Returns the rows of `dedup_rows`, and how the removed copies were proved to be copies."""
    rows, found = dedup_rows(summary), summary.duplicates
    if found is None:
        return rows
    clusters = found.clusters
    rows += [("documents of the largest group", number(max(clusters.sizes, default=0)))]
    evidence = ", ".join(f"{name} {number(count)}" for name, count in sorted(clusters.verified.items()))
    return rows + ([("known to be copies by", evidence)] if evidence else [])


def classifier_rows(found: list[UsedClassifier]) -> list[tuple[str, ...]]:
    """Returns (classifier, trained on, AUC in the test part, precision, recall) of each label."""
    return [(_label_name(each, label), *_quality(label)) for each in found for label in each.labels]


def _label_name(each: UsedClassifier, label: Label) -> str:
    return each.name if len(each.labels) == 1 else f"{each.name}: {label.name}"


def _quality(label: Label) -> tuple[str, ...]:
    test = label.test
    if test is None:
        return ("not known", "not measured", "not measured", "not measured")
    at = test["at_threshold"]
    return (
        f"{label.yes:,} yes, {label.no:,} no", interval(test["roc_auc"]),
        f"{value(at['precision'])} at {label.threshold:.3g}", value(at["recall"]),
    )  # fmt: skip


def set_names(reader: RunReader) -> list[str]:
    """Returns the evaluation sets for which the recipe searches the documents, by name or file."""
    options = reader.settings("dedup").get("contamination")
    sets = options.get("sets") if isinstance(options, dict) else None
    named = [(one.get("name") or one.get("path")) if isinstance(one, dict) else one for one in sets or ()]
    return [shown_path(str(name)) for name in named]


def provenance_rows(reader: RunReader) -> list[Row]:
    """Returns a digest of the code that made each stage; the manifests have the details."""
    rows = []
    for name in MAKING:
        codes = sorted({task.code for task in reader.stages[name].tasks})
        if codes:
            rows.append((f"code of {name}", digest(codes)[:16]))
    return rows


def recipe(reader: RunReader) -> str:
    """Returns the recipe with all defaults, as YAML: the stages up to the documents, and those of the tokens where the run has them. Paths
    are shortened as by `shown_path`."""
    import yaml

    given = reader.description.get("recipe")
    names = [name for name in MAKING if reader.stages[name].status != "missing"] if isinstance(given, dict) else []
    kept = {name: given[name] for name in names if name in given} if isinstance(given, dict) else {}
    return yaml.safe_dump(walked(kept, shown_path), sort_keys=False, allow_unicode=False, width=120).rstrip() if kept else ""


def command(reader: RunReader, last: str) -> str:
    """Returns the command that makes the documents again."""
    inputs = reader.description.get("inputs")
    paths = " ".join(shlex.quote(shown_path(str(path))) for path in inputs) if isinstance(inputs, list) else "INPUT"
    return f"corpusmill run recipe.yaml {paths} --output RUN --to {last}"


def versions(reader: RunReader) -> list[tuple[str, Any]]:
    found = reader.description.get("versions")
    return sorted(found.items()) if isinstance(found, dict) else []


# ---- what the documents are not -----------------------------------------------------------------------
#
# Sentences on the limits of the documents. Each follows from something that the run did or did not do.

#: A host with a larger share of the documents or of their characters is named.
ONE_HOST = 0.2


def limit_facts(summary: Summary, contents: Contents, pii: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Returns what the known limits depend on. Their sentences are in the template."""
    reader, dedup = summary.reader, summary.reader.settings("dedup")
    characters = contents.characters.total() or 1
    shares = {host: (count / contents.documents, contents.characters[host] / characters) for host, count in contents.hosts.items()}
    largest = max((host for host in shares if host != NONE), key=lambda host: (max(shares[host]), host), default=None)
    return {
        "one_host": (largest, *shares[largest]) if largest and max(shares[largest]) > ONE_HOST else None,
        "paths": any(source.startswith("/") for source in contents.sources), "steps": dict(reader.steps()), "toxic": toxic(summary),
        "filtered": reader.present(["filter"]), "deduplicated": reader.stages["dedup"].status == "complete", "dedup": dedup,
        "near": (dedup.get("minhash") or {}).get("enabled", True),
        "left": [found["kind"] for _, found in pii if found["known"] and found["placeholder"] is None],
    }  # fmt: skip
