"""Training a classifier: from a spec to a folder that is whole or not there."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from corpusmill.filters.classifier import training_hashes
from corpusmill.filters.classifier.autotune import Tuned, autotune
from corpusmill.filters.classifier.card import FILE, Classifier, Head
from corpusmill.filters.classifier.choose_threshold import choose_threshold
from corpusmill.filters.classifier.duplicates import NearDuplicates
from corpusmill.filters.classifier.evaluation import evaluate
from corpusmill.filters.classifier.fasttext_training import train_model
from corpusmill.filters.classifier.fit_calibration import fit_calibration
from corpusmill.filters.classifier.model_card import CARD, card_text, make_card
from corpusmill.filters.classifier.prepare import TEST, TRAIN, Prepared, prepare, taken
from corpusmill.filters.classifier.spec import Arguments, TrainingSpec
from corpusmill.filters.classifier.training_hashes import hashes_file
from corpusmill.filters.classifier.unseen_source import HELD_OUT, Scored, check_sources, held_out_scores, unseen_scores
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder

Say = Callable[[str], None]


def train_classifier(
    spec: TrainingSpec, output_folder: str | Path, near_duplicates: NearDuplicates, say: Say = lambda _: None, force: bool = False
) -> Classifier:
    """Trains a classifier and writes its folder (see card.py). Equal specs, files and versions give equal bytes.

    `near_duplicates`: texts to the numbers of their clusters. `say` gets sentences on what goes on. With `force` an earlier classifier in
    the folder is replaced. Raises InputError in one sentence; then nothing is written.
    """
    target = Path(output_folder)
    check_target(target, force)
    started = time.monotonic()
    prepared = prepare(spec, near_duplicates)
    say(f"{prepared.distinct.table.num_rows:,} different examples of {prepared.examples.table.num_rows:,}")
    for label in spec.labels:
        check_sources(prepared, label)
    tuned = autotune(prepared, say) if spec.autotune else None
    arguments = tuned.arguments if tuned else spec.fasttext
    temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{target.name}"
    try:
        temporary.mkdir(parents=True)
        try:
            found = [_train_label(prepared, label, arguments, temporary, say) for label in spec.labels]
            classifier = _described(prepared, arguments, tuned, found)
            content = json.dumps(classifier.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (temporary / FILE).write_text(content, "utf-8")
            (temporary / training_hashes.FILE).write_bytes(hashes_file(prepared.distinct.hashes[prepared.part != TEST]))
            (temporary / CARD).write_text(card_text(classifier), "utf-8")
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    say(f"{target}: written, {time.monotonic() - started:.1f} s after the start")
    return classifier


def check_target(target: Path, force: bool) -> None:
    """Raises InputError where a classifier can't be written there."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise InputError(f"{target}: there is a file of that name; name a new folder.")
    if not any(target.iterdir()):
        return
    if not (target / FILE).is_file():
        raise InputError(f"{target}: holds something else than a classifier; name a new or empty folder.")
    if not force:
        raise InputError(f"{target}: holds a classifier already; --force replaces it.")


def _publish(temporary: Path, target: Path) -> None:
    """Puts the new folder in the place of the old one, if there is any."""
    old = temporary.with_name(temporary.name + "-old")
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _train_label(prepared: Prepared, label: str, arguments: Arguments, folder: Path, say: Say) -> tuple[Head, dict[str, Any]]:
    """One label's model in `folder`, its head, and what the card says of it."""
    spec = prepared.spec
    path = folder / f"{label}.{'ftz' if spec.compress else 'bin'}"
    _, yes = prepared.answers(label)
    order = prepared.order(label, prepared.rows(label, TRAIN))
    train_model(label, path, prepared.distinct.lines, yes, order, arguments, spec.compress, spec.seed)
    held_out, unseen = held_out_scores(prepared, label, path), unseen_scores(prepared, label, arguments)
    fitted_on = unseen if unseen and spec.calibrate_on == "unseen_source" else held_out
    calibration = fit_calibration(spec.calibration, fitted_on.raw, yes[fitted_on.rows], fitted_on.weights)
    chosen_on = held_out
    if unseen and spec.threshold_on != "held_out":
        chosen_on = held_out.joined(unseen) if spec.threshold_on == "auto" else unseen
    threshold = choose_threshold(calibration.apply(chosen_on.raw), yes[chosen_on.rows], spec.threshold_rule, chosen_on.weights)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    head = Head(label=label, file=path.name, sha256=digest, calibration=calibration, threshold=threshold)
    test = _measured(prepared, head, held_out_scores(prepared, label, path, TEST))
    say(f"label {label}: AUC {test['roc_auc']['value']:.3f} on the test part; yes from {threshold:.3f} on")
    return head, {
        "parts": prepared.counts(label),
        "trained_on": {"yes": int(yes[order].sum()), "no": int((~yes[order]).sum())},
        "bytes": path.stat().st_size,
        "calibrated_on": _what(prepared, fitted_on, yes),
        "threshold_on": _what(prepared, chosen_on, yes),
        "test": test,
        "unseen": _measured(prepared, head, unseen) if unseen else None,
    }


def _measured(prepared: Prepared, head: Head, scored: Scored) -> dict[str, Any]:
    """What the calibrated scores of some examples are worth (evaluation.py)."""
    table = prepared.distinct.table
    _, yes = prepared.answers(head.label)
    lengths = pc.utf8_length(taken(table["text"], scored.rows)).to_numpy()
    answer, source = yes[scored.rows].astype(np.int8), taken(table["source"], scored.rows)
    return evaluate(head.calibration.apply(scored.raw), answer, source, lengths, head.threshold, prepared.spec.seed)


def _what(prepared: Prepared, scored: Scored, yes: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Which examples those are, in words and numbers, for the card."""
    answers, groups = yes[scored.rows], np.unique(scored.left_out).tolist()
    sources = [prepared.spec.sources[place].named() for place in groups if place != HELD_OUT]
    parts = ["the validation part"] * (HELD_OUT in groups) + ["sources left out in turn"] * bool(sources)
    return {
        "what": " and ".join(parts),
        "sources": sources,
        "yes": int(answers.sum()),
        "no": int((~answers).sum()),
    }


def _described(prepared: Prepared, arguments: Arguments, tuned: Tuned | None, found: list[tuple[Head, dict[str, Any]]]) -> Classifier:
    spec = prepared.spec
    card = make_card(prepared, arguments, tuned, {head.label: facts for head, facts in found})
    return Classifier(
        name=spec.name, form=spec.form, window=spec.window, ranks=spec.ranks, heads=tuple(head for head, _ in found), card=card
    )
