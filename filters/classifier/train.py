"""Trains a classifier from a spec, and writes a complete folder or none."""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import corpusmill
from corpusmill.filters.classifier.calibrate import Calibration, choose_threshold, fit_calibration
from corpusmill.filters.classifier.card import CARD, FILE, NO, YES, ClassifierDescription, ClassifierHead, card_text
from corpusmill.filters.classifier.evaluate import evaluate
from corpusmill.filters.classifier.prepare import TEST, VALIDATION, Integers, TrainingData, prepare
from corpusmill.filters.classifier.score import TRAINING_HASHES, Floats, Scorer, added_odds, hashes_file
from corpusmill.filters.classifier.spec import Arguments, TrainingSpec
from corpusmill.filters.fasttext_model import CENTROIDS
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder

# ---- fastText, with one thread and no output: equal lines and arguments give equal bytes
#
# fastText's file has no path, no time and no version of the machine. Several threads would train in an order that differs between runs.


def train_model(label: str, target: Path, prepared: TrainingData, order: Integers) -> None:
    """Trains a label's model on examples in an order, and writes it to `target` (`.ftz` if it is compressed, else `.bin`).

    Raises InputError if fastText can't train with these arguments.
    """
    import fasttext

    spec = prepared.spec
    with tempfile.TemporaryDirectory() as folder:
        path, lines = Path(folder) / "examples.txt", prepared.distinct.lines.take(order)
        with open(path, "wb") as file:
            for yes, line in zip(prepared.yes(label)[order], lines.to_pylist(), strict=True):
                file.write(f"{YES if yes else NO} {line}\n".encode())
        try:
            model = fasttext.train_supervised(str(path), thread=1, verbose=0, seed=spec.seed, **spec.fasttext.model_dump())
            if not set(model.words) - {"</s>"} and spec.fasttext.maxn == 0:
                raise ValueError("empty vocabulary")
            if spec.compress:
                rows = len(np.asarray(model.f.getInputMatrix()))
                if rows < CENTROIDS:
                    raise ValueError(f"its {rows} rows are too few to be compressed; train with compress: false")
                cutoff = spec.cutoff if spec.cutoff < rows else 0
                model.quantize(str(path), cutoff=cutoff, retrain=cutoff > 0, thread=1, verbose=0, dsub=2, qnorm=True)
            model.save_model(str(target))
        except (RuntimeError, ValueError) as error:
            raise InputError(_reason(label, str(error), spec.fasttext)) from error


def _reason(label: str, error: str, arguments: Arguments) -> str:
    if "NaN" in error:
        return (
            f"label {label}: the training gave numbers that are none (NaN) at a learning rate of {arguments.lr:g}; "
            f"lower fasttext.lr or fasttext.epoch."
        )
    if "vocabulary" in error.lower():
        return f"label {label}: no word comes {arguments.minCount} times; lower fasttext.minCount, or give more examples."
    return f"label {label}: fastText can't train ({error.strip().rstrip('.')})."


# ---- From a spec to a folder

OnMessage = Callable[[str], None]


def train_classifier(spec: TrainingSpec, output_folder: str | Path, on_message: OnMessage = lambda _: None) -> ClassifierDescription:
    """Trains a classifier and writes its folder (see card.py), which must be new or empty. Equal specs, files and versions give equal
    bytes.

    `on_message` receives sentences about the progress. Raises InputError in one sentence; then nothing is written.
    """
    require("the training of a classifier", "sklearn")
    target = Path(output_folder)
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: is there already; remove it, or name a new or empty folder.")
    started = time.monotonic()
    prepared = prepare(spec)
    for report in prepared.examples.sources:
        if report.empty or report.unanswered:
            on_message(f"{report.name}: of {report.rows:,} rows {report.empty:,} have no text and {report.unanswered:,} texts no answer")
    on_message(f"{prepared.distinct.table.num_rows:,} different examples of {prepared.examples.table.num_rows:,}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            temporary.mkdir()
            found = [_train_label(prepared, label, temporary, on_message) for label in spec.labels]
            heads, card = tuple(head for head, _ in found), _card(prepared, {head.label: facts for head, facts in found})
            classifier = ClassifierDescription(name=spec.name, form=spec.form, window=spec.window, ranks=spec.ranks, heads=heads, card=card)
            content = json.dumps(classifier.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (temporary / FILE).write_text(content, "utf-8")
            (temporary / TRAINING_HASHES).write_bytes(hashes_file(prepared.distinct.hashes[prepared.part != TEST]))
            (temporary / CARD).write_text(card_text(classifier), "utf-8")
            temporary.rename(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    on_message(f"{target}: written, {time.monotonic() - started:.1f} s after the start")
    return classifier


def _train_label(prepared: TrainingData, label: str, folder: Path, on_message: OnMessage) -> tuple[ClassifierHead, dict[str, Any]]:
    """Trains one label's model into `folder`; returns its head and its part of the card."""
    spec = prepared.spec
    path = folder / f"{label}.{'ftz' if spec.compress else 'bin'}"
    yes, order, table = prepared.yes(label), prepared.order(label), prepared.distinct.table
    train_model(label, path, prepared, order)
    bare = ClassifierHead(label=label, file=path.name, sha256=sha256_of(path))
    scorer = Scorer(folder, ClassifierDescription(name=label, form=spec.form, window=spec.window, heads=(bare,)))

    def scored(part: int) -> tuple[Integers, pa.Table, Floats]:
        """Returns the examples of a part, their table and their raw scores."""
        rows = prepared.rows(label, part)
        examples = table.take(rows)
        return rows, examples, scorer.score(examples["text"])[0]

    rows, examples, raw = scored(VALIDATION)
    calibration = fit_calibration(raw, yes[rows]) if spec.calibration == "platt" else Calibration()
    calibration = calibration.model_copy(update={"length": spec.length, "stop_words": spec.stop_words})
    threshold = choose_threshold(calibration.apply(raw, added_odds(calibration, examples["text"])), yes[rows], spec.precision)
    rows, examples, raw = scored(TEST)
    scores, lengths = calibration.apply(raw, added_odds(calibration, examples["text"])), pc.utf8_length(examples["text"]).to_numpy()
    test = evaluate(scores, yes[rows].astype(np.int8), examples["source"], lengths, threshold, spec.seed)
    on_message(f"label {label}: AUC {test['roc_auc']['value']:.3f} on the test part; yes from {threshold:.3f} on")
    return bare.model_copy(update={"calibration": calibration, "threshold": threshold}), {
        "parts": prepared.counts(label),
        "trained_on": {"yes": int(yes[order].sum()), "no": int((~yes[order]).sum())},
        "bytes": path.stat().st_size,
        "test": test,
    }


# ---- The model card: a classifier's training data and how far to trust it, for programs (`card` in classifier.json) and for people
#
# It has no text of the data and nothing that differs between machines: files by name and sha256, no paths, no times.

#: Libraries that can change the model, its calibration or its measures.
LIBRARIES = ("fasttext-community", "numpy", "pyarrow", "scikit-learn", "scipy", "xxhash")


def _card(prepared: TrainingData, labels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the card as JSON. `labels`: each label's part of the card (`_train_label`)."""
    spec, distinct = prepared.spec, prepared.distinct
    portable = spec.model_dump(mode="json")
    for source in portable["sources"]:
        source["files"] = [Path(path).name for path in source["files"]]
    return {
        "licence": spec.licence,
        "limits": list(spec.limits),
        "versions": {"corpusmill": corpusmill.__version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in LIBRARIES},
        "data": {
            "sources": [asdict(report) for report in prepared.examples.sources],
            "examples": prepared.examples.table.num_rows,
            "different": distinct.table.num_rows,
            "copies": distinct.copies,
            "blank": distinct.blank,
            "conflicts": distinct.conflicts,
            "left_out_by_conflict": distinct.unanswered,
            "clusters": len(np.unique(distinct.cluster)),
            "bytes_of_a_line": {str(share): int(np.quantile(pc.binary_length(distinct.lines), share)) for share in (0.05, 0.5, 0.95)},
        },
        "labels": dict(labels),
        "spec": portable,
    }
