"""The model card: what a classifier was trained on and how far to trust it, for programs (`card` in classifier.json) and for people.

It holds no text of the data and nothing that differs between machines: files by name and sha256, no paths, no times.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import corpusmill
from corpusmill.filters.classifier.card import FILE, Classifier, ClassifierHead
from corpusmill.filters.classifier.prepare import TrainingData
from corpusmill.filters.classifier.spec import TrainingSpec

CARD = "README.md"
#: Libraries that decide about the model, its calibration or its measures.
LIBRARIES = ("fasttext-community", "numpy", "pyarrow", "scikit-learn", "scipy", "xxhash")
#: Rows of the threshold table as people read it.
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def make_card(prepared: TrainingData, labels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The card as JSON. `labels`: what the training found of each (train.py)."""
    spec, distinct = prepared.spec, prepared.distinct
    lengths = np.diff(np.asarray(distinct.lines.cast("large_binary").buffers()[1]).view(np.int64)[: len(distinct.lines) + 1])
    return {
        "licence": spec.licence,
        "limits": list(spec.limits),
        "versions": {"corpusmill": corpusmill.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in LIBRARIES},
        "data": {
            "sources": [
                {
                    **asdict(report),
                    "repeat": source.repeat,
                    "pieces": source.pieces.model_dump(exclude_none=True) if source.pieces else None,
                }
                for report, source in zip(prepared.examples.sources, spec.sources)
            ],
            "examples": prepared.examples.table.num_rows,
            "different": distinct.table.num_rows,
            "copies": distinct.copies,
            "blank": distinct.blank,
            "conflicts": distinct.conflicts,
            "left_out_by_conflict": distinct.unanswered,
            "clusters": len(np.unique(distinct.cluster)),
            "bytes_of_a_line": {str(share): int(np.quantile(lengths, share)) for share in (0.05, 0.5, 0.95)},
        },
        "split": spec.split.model_dump(),
        "training": {
            "seed": spec.seed,
            "balance": spec.balance,
            "ratio": spec.ratio,
            "compress": spec.compress.model_dump() if spec.compress else None,
            "autotune": spec.autotune,
            "calibration": spec.calibration,
            "threshold_rule": spec.threshold_rule.model_dump(),
        },
        "labels": dict(labels),
        "spec": _portable(spec),
    }


def _portable(spec: TrainingSpec) -> dict[str, Any]:
    """The spec without the folders of the machine."""
    found = spec.model_dump(mode="json", exclude_none=True)
    for source in found["sources"]:
        source["files"] = [Path(path).name for path in source["files"]]
        source["weak"] = {label: Path(path).name for label, path in source["weak"].items()}
        if "run" in source:
            source["run"] = Path(source["run"].rstrip("/")).name
    return found


def card_text(classifier: Classifier) -> str:
    """The card in Markdown."""
    card = classifier.card
    parts = [f"# {classifier.name}", _opening(classifier), "## How good it is", *_quality(classifier), "## Data", *_data(card)]
    parts += ["## Training", *_training(classifier), "## Use and limits", *_limits(classifier)]
    return "\n\n".join(parts) + "\n"


def _opening(classifier: Classifier) -> str:
    labels = ", ".join(f"`{head.label}`" for head in classifier.heads)
    licence = _safe(classifier.card["licence"] or "not stated; the data's licences below apply")
    return (
        f"A fastText classifier with the label{'s' if len(classifier.heads) > 1 else ''} {labels}, made by corpusmill "
        f"{classifier.card['versions']['corpusmill']}. Programs read `{FILE}`; `corpusmill classifier score` applies it.\n\n"
        f"Licence: {licence}."
    )


def _quality(classifier: Classifier) -> Iterator[str]:
    yield "In brackets: 95 % bootstrap intervals. Precision, recall and F1 are those at the label's threshold."
    for head in classifier.heads:
        found = classifier.card["labels"][head.label]
        test, unseen = found["test"], found["unseen"]
        yield f"### {head.label}"
        yield "On the test part, which neither the model, nor its calibration, nor its threshold has seen:"
        rows = [("all", test)] + (list(test["by_source"].items()) if len(test["by_source"]) > 1 else [])
        yield _table(["source", *_HEADS], [_measures(name, found) for name, found in rows])
        yield _table(["length in characters", *_HEADS], [_measures(name, found) for name, found in test["by_length"].items()])
        if unseen:
            yield (
                "On each source by a model that was trained without it, which is what to expect on text from elsewhere (the threshold was "
                "chosen on these scores, too, if the next lines say so):"
            )
            yield _table(["source left out", *_HEADS], [_measures(name, found) for name, found in unseen["by_source"].items()])
        yield from _decisions(head, found, classifier.card["training"]["threshold_rule"])


def _decisions(head: ClassifierHead, found: Mapping[str, Any], rule: Mapping[str, Any]) -> Iterator[str]:
    """How scores and threshold came about, and what other thresholds would do."""
    test = found["test"]
    value = f" {rule['value']:g}" if rule["value"] is not None else ""
    yield (
        f"Yes begins at **{head.threshold:.4g}** (rule: {rule['kind'].replace('_', ' ')}{value}), chosen on "
        f"{_examples(found['threshold_on'])}. Calibration: {head.calibration.method}, fitted on {_examples(found['calibrated_on'])}; "
        f"expected calibration error on the test part: {_interval(test['calibration_error'])}."
    )
    names = ("precision", "recall", "f1", "kept")
    shown = [row for row in test["thresholds"] if row["threshold"] in SHOWN]
    yield _table(
        ["threshold", "precision", "recall", "F1", "kept"],
        [[f"{row['threshold']:g}", *(_interval(row[name]) for name in names)] for row in shown],
    )


def _examples(on: Mapping[str, Any]) -> str:
    sources = f" ({', '.join(map(_safe, on['sources']))}), which all count alike" if on["sources"] else ""
    return f"{on['what']}{sources}: {on['yes']:,} yes, {on['no']:,} no"


_HEADS = ("yes", "no", "ROC AUC", "average precision", "precision", "recall", "F1")


def _measures(name: str, found: Mapping[str, Any]) -> list[str]:
    at = found["at_threshold"]
    values = (found["roc_auc"], found["average_precision"], at["precision"], at["recall"], at["f1"])
    return [_safe(name), f"{found['yes']:,}", f"{found['no']:,}", *map(_interval, values)]


def _interval(measure: Mapping[str, float] | None) -> str:
    return "" if measure is None else f"{measure['value']:.3f} ({measure['low']:.3f} to {measure['high']:.3f})"


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    data = card["data"]
    labels = list(card["labels"])
    yield _table(
        ["source", "licence", "rows", "examples", *(f"{label}: yes / no" for label in labels), "weight"],
        [_source_row(source, labels) for source in data["sources"]],
    )
    files = [
        [_safe(source["name"]), _safe(file["name"]), f"{file['bytes']:,}", file["sha256"]]
        for source in data["sources"]
        for file in source["files"]
    ]
    yield _table(["source", "file", "bytes", "sha256"], files[:50])
    if len(files) > 50:
        yield f"And {len(files) - 50:,} files more, which `{FILE}` lists."
    empty, unknown = (sum(source[name] for source in data["sources"]) for name in ("empty", "unknown"))
    conflicts = sum(data["conflicts"].values())
    yield (
        f"Of {data['examples']:,} examples {data['different']:,} are different as fastText reads them; {data['copies']:,} are copies, "
        f"{data['blank']:,} are blank in the classifier's form. {conflicts:,} answers were dropped because copies contradict each other, "
        f"and with them {data['left_out_by_conflict']:,} examples. {empty:,} rows had no text, {unknown:,} cells no answer (unknown, "
        f"which is neither yes nor no)."
    )
    shares = card["split"]
    yield (
        f"Split by a hash of the content, {shares['train']:.0%} / {shares['validation']:.0%} / {shares['test']:.0%}: near copies and "
        f"pieces of one document ({data['clusters']:,} clusters) are always in one part."
    )
    yield _table(
        ["label", "train: yes / no", "validation", "test"],
        [
            [label, *(f"{found['parts'][part]['yes']:,} / {found['parts'][part]['no']:,}" for part in ("train", "validation", "test"))]
            for label, found in card["labels"].items()
        ],
    )


def _source_row(source: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    answers = [f"{source['answers'][label]['yes']:,} / {source['answers'][label]['no']:,}" for label in labels]
    licence = _safe(source["licence"] or "not stated")
    return [_safe(source["name"]), licence, f"{source['rows']:,}", f"{source['examples']:,}", *answers, f"{source['repeat']:g}"]


def _training(classifier: Classifier) -> Iterator[str]:
    card = classifier.card
    training = card["training"]
    form = f"Texts are written in the form `{classifier.form}`" + (
        f", in windows of {classifier.window} words" if classifier.window else ""
    )
    compress = training["compress"]
    quantised = f"; quantised to {compress['cutoff']:,} rows" if compress and compress["cutoff"] else "; quantised" if compress else ""
    yield f"{form}. fastText, one thread, seed {training['seed']}{quantised}. {_balance(training)}."
    yield _table(
        ["label", "lines trained on: yes / no", "file", "bytes", "sha256"],
        [
            [head.label, f"{found['trained_on']['yes']:,} / {found['trained_on']['no']:,}", head.file, f"{found['bytes']:,}", head.sha256]
            for head in classifier.heads
            for found in [card["labels"][head.label]]
        ],
    )
    found = {head.label: card["labels"][head.label]["arguments"] for head in classifier.heads}
    if training["autotune"]:
        yield f"fastText's own search for arguments had {training['autotune']:g} seconds a label; its measure is F1 on the validation part."
    yield _table(["label", *next(iter(found.values()))], [[label, *map(_number, each.values())] for label, each in found.items()])
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in card["versions"].items()) + "."


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _balance(training: Mapping[str, Any]) -> str:
    if training["balance"] == "none":
        return "Answers as often as they come"
    how = "rarer answers are repeated" if training["balance"] == "repeat" else "the other answer is drawn from"
    return f"Where one answer comes more than {training['ratio']:g} times as often, {how}"


def _limits(classifier: Classifier) -> Iterator[str]:
    card = classifier.card
    if card["limits"]:
        yield "What it cannot do:"
        yield "\n".join(f"- {_safe(sentence)}" for sentence in card["limits"])
    if classifier.ranks:
        yield "It puts texts in order: decide by a share that is kept. Its thresholds mean nothing on text of another kind."
    lengths = card["data"]["bytes_of_a_line"]
    yield (
        "For scoring documents of a corpus, in bulk, where a wrong answer costs little. Not for judging people, nor for decisions about "
        "single texts without a look at them."
    )
    window = (
        f"A long document is scored by its windows of {classifier.window} words, and its score is the greatest of them: the more windows, "
        f"the greater it is by chance alone."
        if classifier.window
        else "A document is scored as a whole: a short passage in a long document counts little. `window` scores it in parts."
    )
    yield (
        f"Texts of the training have {lengths['0.05']:,} to {lengths['0.95']:,} bytes (5 % to 95 %), {lengths['0.5']:,} in the middle. "
        f"{window}"
    )
    yield (
        "Scores mean what they say on text like the training text, with as much of yes as there: of what scores .5 half is yes. On other "
        "text the model is less sure than it says, and where yes is rarer, as most things are in a crawl, less of what it marks is right. "
        "Look at `corpusmill classifier evaluate` on labelled text of the kind that you score, or keep a share of the corpus by the order "
        "of its scores."
    )
    yield "It knows the words and the languages of its training text, no others, and repeats the judgements of those who labelled it."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_safe, head)) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _safe(text: str) -> str:
    """A name as Markdown shows it: no markup, no line break, nothing unprintable."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    for character in "\\`*_{}[]<>|#&":
        shown = shown.replace(character, f"\\{character}") if character != "&" else shown.replace("&", "&amp;")
    return shown
