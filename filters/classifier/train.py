"""Trains a classifier from a spec, and writes a complete folder or none."""

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import corpusmill
from corpusmill.filters.classifier.calibrate import choose_threshold, fit_calibration, source_weights
from corpusmill.filters.classifier.card import FILE, NO, YES, ClassifierDescription, ClassifierHead
from corpusmill.filters.classifier.evaluate import evaluate
from corpusmill.filters.classifier.prepare import TEST, TRAIN, VALIDATION, Integers, TrainingData, mixed, prepare, taken
from corpusmill.filters.classifier.score import TRAINING_HASHES, added_odds, hashes_file, score_raw
from corpusmill.filters.classifier.spec import Arguments, Quantisation, TrainingSpec
from corpusmill.filters.fasttext_model import CENTROIDS
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder

# ---- fastText, with one thread and no output: equal lines and arguments give equal bytes
#
# fastText's file has no path, no time and no version of the machine. Several threads would train in an order that differs between runs.


def write_lines(path: Path, lines: pa.Array, answer: npt.NDArray[np.bool_], order: npt.NDArray[np.int64]) -> None:
    """Writes fastText's training file: a line for each example, in the given order. `lines` (large_string): the result of `write_form`."""
    labels = pa.array([f"{NO} ", f"{YES} "], pa.large_string()).take(pa.array(answer.astype(np.int64)))
    written = pc.binary_join_element_wise(labels, lines, pa.scalar("\n", pa.large_string()), pa.scalar("", pa.large_string())).take(
        pa.array(order)
    )
    with open(path, "wb") as file:
        for line in written.to_pylist():
            file.write(line.encode())


def train_model(
    label: str,
    target: Path,
    lines: pa.Array,
    answer: npt.NDArray[np.bool_],
    order: npt.NDArray[np.int64],
    arguments: Arguments,
    compression: Quantisation | None,
    seed: int,
) -> None:
    """Trains a model of one label and writes it to `target` (`.ftz` if it is compressed, else `.bin`).

    Raises InputError if fastText can't train with these arguments.
    """
    import fasttext

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.txt"
        write_lines(path, lines, answer, order)
        try:
            model = fasttext.train_supervised(str(path), thread=1, verbose=0, seed=seed, **arguments.model_dump())
            if not set(model.words) - {"</s>"} and arguments.maxn == 0:
                raise ValueError("empty vocabulary")
            if compression:
                rows = len(np.asarray(model.f.getInputMatrix()))
                if rows < CENTROIDS:
                    raise ValueError(f"its {rows} rows are too few to be compressed; train with --no-compress")
                cutoff = compression.cutoff if compression.cutoff < rows else 0
                again = cutoff > 0 and compression.retrain
                model.quantize(str(path), cutoff=cutoff, retrain=again, thread=1, verbose=0, dsub=compression.dsub, qnorm=compression.qnorm)
            model.save_model(str(target))
        except (RuntimeError, ValueError) as error:
            raise InputError(_reason(label, str(error), arguments)) from error


def _reason(label: str, error: str, arguments: Arguments) -> str:
    if "NaN" in error:
        return (
            f"label {label}: the training gave numbers that are none (NaN) at a learning rate of {arguments.lr:g}; "
            f"lower fasttext.lr or fasttext.epoch."
        )
    if "vocabulary" in error.lower():
        return f"label {label}: no word comes {arguments.minCount} times; lower fasttext.minCount, or give more examples."
    return f"label {label}: fastText can't train ({error.strip().rstrip('.')})."


# ---- Scores of texts from sources that the model has not seen, for the choice of the threshold
#
# A model is more certain about text like its training text than about other text. So a threshold that fits held-out text of the training's
# sources is too high for the web: there the AUC may be fine while F1 falls. Therefore each source with both answers is left out in turn
# ("leave one source out"): a model is trained on all other sources and scores the source. The threshold is chosen on these scores and on
# those of the held-out part; each source, and the held-out part, has the same weight. (On the sources left out alone, the best threshold
# may be one that says yes to everything.) docs/stages/classifiers.md has the effect on text of further sources.

#: The fewest examples of each answer in a source that is left out, and in all other sources together.
FEWEST = 50
#: The most examples of a source that are scored.
MOST = 5_000
#: The most sources that are left out in turn. If there are more, none is left out, because they are probably shards of one kind of text.
MOST_SOURCES = 8
#: Stands for the held-out part instead of a source's place.
HELD_OUT = -1


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of n examples by models that were not trained on them.

    `rows`: the places of the examples. `raw`: their raw scores. `left_out`: the place in the spec of the source that the model's training
    left out, or HELD_OUT.
    """

    rows: Integers
    raw: npt.NDArray[np.float64]
    left_out: Integers

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weights by which each source that was left out, and the held-out part, count equally."""
        return source_weights([str(place) for place in self.left_out])

    def joined(self, other: "HeldOutScores") -> "HeldOutScores":
        return HeldOutScores(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.raw, other.raw]),
            np.concatenate([self.left_out, other.left_out]),
        )


def sources_to_leave_out(prepared: TrainingData, label: str) -> list[int]:
    """Returns the sources with enough examples of both answers, if the other sources together have enough, too.

    Returns none if there are fewer than two such sources, or more than MOST_SOURCES.
    """
    _, yes = prepared.answers(label)
    rows = prepared.rows(label, TRAIN, VALIDATION)
    found = []
    for source in range(len(prepared.spec.sources)):
        from_source = prepared.source[rows] == source
        if all(min(yes[rows[side]].sum(), (~yes[rows[side]]).sum()) >= FEWEST for side in (from_source, ~from_source)):
            found.append(source)
    return found if 2 <= len(found) <= MOST_SOURCES else []


def scores_by_source(prepared: TrainingData, label: str, sources: list[int], arguments: Arguments) -> Iterator[HeldOutScores]:
    """Yields for each of `sources` its examples, scored by a model that was trained without the source.

    The examples are outside the test part, at most MOST, drawn by hash. The model's training has no near copy of them, either. The models
    are not compressed if compression hardly changes scores (no cutoff).
    """
    spec, distinct = prepared.spec, prepared.distinct
    compression = spec.compress if spec.compress and spec.compress.cutoff else None
    rows, training = prepared.rows(label, TRAIN, VALIDATION), prepared.rows(label, TRAIN)
    for source in sources:
        held_out = rows[prepared.source[rows] == source]
        held_out = np.sort(held_out[np.argsort(mixed(distinct.hashes[held_out], spec.seed, "unseen"), kind="stable")[:MOST]])
        others = training[(prepared.source[training] != source) & ~np.isin(distinct.cluster[training], distinct.cluster[held_out])]
        raw = trained_scores(prepared, label, prepared.order(label, others), held_out, arguments, compression)
        yield HeldOutScores(held_out, raw, np.full(len(held_out), source))


def trained_scores(
    prepared: TrainingData, label: str, order: Integers, rows: Integers, arguments: Arguments, compression: Quantisation | None
) -> npt.NDArray[np.float64]:
    """Returns the raw scores of `rows` by a temporary model that is trained on `order`."""
    _, yes = prepared.answers(label)
    with TemporaryDirectory() as folder:
        target = Path(folder) / ("model.ftz" if compression else "model.bin")
        train_model(label, target, prepared.distinct.lines, yes, order, arguments, compression, prepared.spec.seed)
        return scores_of(prepared, target, rows)


def scores_of(prepared: TrainingData, model: Path, rows: Integers) -> npt.NDArray[np.float64]:
    """Returns the raw scores of some examples by a model's file."""
    return score_raw(model, prepared.spec.form, prepared.spec.window, taken(prepared.distinct.table["text"], rows))


def held_out_scores(prepared: TrainingData, label: str, model: Path, part: int = VALIDATION) -> HeldOutScores:
    """Returns a part that the model was not trained on, with its scores."""
    rows = prepared.rows(label, part)
    return HeldOutScores(rows, scores_of(prepared, model, rows), np.full(len(rows), HELD_OUT))


def check_sources(prepared: TrainingData, label: str) -> None:
    """Raises InputError if the spec needs sources that are left out, but none can be."""
    if "unseen_source" in (prepared.spec.calibrate_on, prepared.spec.threshold_on) and not sources_to_leave_out(prepared, label):
        raise InputError(
            f"label {label}: no source can be left out (unseen_source): it takes 2 to {MOST_SOURCES} sources with {FEWEST} examples "
            f"of each answer outside the test part."
        )


def unseen_scores(prepared: TrainingData, label: str, arguments: Arguments) -> HeldOutScores | None:
    """Returns scores of all sources that can be left out, each scored by a model that was trained without it. None if these scores are not
    needed, or too few sources can be left out."""
    needless = (prepared.spec.calibrate_on, prepared.spec.threshold_on) == ("held_out", "held_out")
    sources = [] if needless else sources_to_leave_out(prepared, label)
    return reduce(HeldOutScores.joined, scores_by_source(prepared, label, sources, arguments)) if sources else None


# ---- fastText's own search for arguments


def autotuned(prepared: TrainingData, label: str, seconds: float) -> Arguments:
    """Returns the arguments with the best F1 on the validation part that fastText finds in that time.

    The search depends on the clock and on all threads, so a second search may find other arguments. The card records them: training with
    these gives the same bytes.
    """
    import fasttext

    _, yes = prepared.answers(label)
    given = prepared.spec.fasttext
    with TemporaryDirectory() as folder:
        training, validation = Path(folder) / "training.txt", Path(folder) / "validation.txt"
        write_lines(training, prepared.distinct.lines, yes, prepared.order(label, prepared.rows(label, TRAIN)))
        write_lines(validation, prepared.distinct.lines, yes, prepared.rows(label, VALIDATION))
        try:
            found = fasttext.train_supervised(
                str(training), autotuneValidationFile=str(validation), autotuneDuration=max(1, round(seconds)),
                autotuneMetric=f"f1:{YES}", thread=os.cpu_count() or 1, seed=prepared.spec.seed, verbose=0, minCount=given.minCount,
            ).f.getArgs()  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise InputError(_reason(label, str(error), given)) from error
    chosen = {name: getattr(found, name) for name in ("dim", "epoch", "lr", "wordNgrams", "minn", "maxn", "bucket")}
    return Arguments.model_validate({**given.model_dump(), **chosen, "bucket": found.bucket or given.bucket})


# ---- From a spec to a folder

OnMessage = Callable[[str], None]


def train_classifier(
    spec: TrainingSpec, output_folder: str | Path, on_message: OnMessage = lambda _: None, force: bool = False
) -> ClassifierDescription:
    """Trains a classifier and writes its folder (see card.py). Equal specs, files and versions give equal bytes.

    `on_message` receives sentences about the progress. `force` replaces an earlier classifier in the folder. Raises InputError in one
    sentence; then nothing is written.
    """
    require("the training of a classifier", "sklearn")
    target = Path(output_folder)
    check_target(target, force)
    started = time.monotonic()
    prepared = prepare(spec)
    for source, report in zip(spec.sources, prepared.examples.sources):
        if source.labelled and report.empty:
            on_message(f"{report.name}: {report.empty:,} of {report.rows:,} labelled texts have changed, so they are left out")
    on_message(f"{prepared.distinct.table.num_rows:,} different examples of {prepared.examples.table.num_rows:,}")
    for label in spec.labels:
        check_sources(prepared, label)
    temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{target.name}"
    try:
        temporary.mkdir(parents=True)
        try:
            found = [_train_label(prepared, label, temporary, on_message) for label in spec.labels]
            classifier = _described(prepared, found)
            content = json.dumps(classifier.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (temporary / FILE).write_text(content, "utf-8")
            (temporary / TRAINING_HASHES).write_bytes(hashes_file(prepared.distinct.hashes[prepared.part != TEST]))
            (temporary / CARD).write_text(card_text(classifier), "utf-8")
            _publish(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    on_message(f"{target}: written, {time.monotonic() - started:.1f} s after the start")
    return classifier


def check_target(target: Path, force: bool) -> None:
    """Raises InputError if a classifier can't be written there."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise InputError(f"{target}: there is a file of that name; name a new folder.")
    if not any(target.iterdir()):
        return
    if not (target / FILE).is_file():
        raise InputError(f"{target}: holds something other than a classifier; name a new or empty folder.")
    if not force:
        raise InputError(f"{target}: holds a classifier already; --force replaces it.")


def _publish(temporary: Path, target: Path) -> None:
    """Moves the new folder to its place, and removes the old one, if there is any."""
    old = temporary.with_name(temporary.name + "-old")
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _train_label(prepared: TrainingData, label: str, folder: Path, on_message: OnMessage) -> tuple[ClassifierHead, dict[str, Any]]:
    """Trains one label's model into `folder`; returns its head and its part of the card."""
    spec = prepared.spec
    path = folder / f"{label}.{'ftz' if spec.compress else 'bin'}"
    _, yes = prepared.answers(label)
    arguments = autotuned(prepared, label, spec.autotune) if spec.autotune else spec.fasttext
    order = prepared.order(label, prepared.rows(label, TRAIN))
    train_model(label, path, prepared.distinct.lines, yes, order, arguments, spec.compress, spec.seed)
    held_out, unseen = held_out_scores(prepared, label, path), unseen_scores(prepared, label, arguments)
    fitted_on = unseen if unseen and spec.calibrate_on == "unseen_source" else held_out
    calibration = fit_calibration(spec.calibration, fitted_on.raw, yes[fitted_on.rows], fitted_on.weights)
    calibration = calibration.model_copy(update={"length": spec.length, "stop_words": spec.stop_words})
    chosen_on = held_out
    if unseen and spec.threshold_on != "held_out":
        chosen_on = held_out.joined(unseen) if spec.threshold_on == "auto" else unseen
    scores = calibration.apply(chosen_on.raw, added_odds(calibration, taken(prepared.distinct.table["text"], chosen_on.rows)))
    threshold = choose_threshold(scores, yes[chosen_on.rows], spec.threshold_rule, chosen_on.weights)
    head = ClassifierHead(label=label, file=path.name, sha256=sha256_of(path), calibration=calibration, threshold=threshold)
    test = _measured(prepared, head, held_out_scores(prepared, label, path, TEST))
    on_message(f"label {label}: AUC {test['roc_auc']['value']:.3f} on the test part; yes from {threshold:.3f} on")
    return head, {
        "parts": prepared.counts(label),
        "trained_on": {"yes": int(yes[order].sum()), "no": int((~yes[order]).sum())},
        "arguments": arguments.model_dump(mode="json"),
        "bytes": path.stat().st_size,
        "calibrated_on": _what(prepared, fitted_on, yes),
        "threshold_on": _what(prepared, chosen_on, yes),
        "test": test,
        "unseen": _measured(prepared, head, unseen) if unseen else None,
    }


def _measured(prepared: TrainingData, head: ClassifierHead, scored: HeldOutScores) -> dict[str, Any]:
    """Measures the calibrated scores of some examples."""
    table = prepared.distinct.table
    _, yes = prepared.answers(head.label)
    text = taken(table["text"], scored.rows)
    lengths, scores = pc.utf8_length(text).to_numpy(), head.calibration.apply(scored.raw, added_odds(head.calibration, text))
    answer, source = yes[scored.rows].astype(np.int8), taken(table["source"], scored.rows)
    return evaluate(scores, answer, source, lengths, head.threshold, prepared.spec.seed)


def _what(prepared: TrainingData, scored: HeldOutScores, yes: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Describes the scored examples, for the card."""
    answers, groups = yes[scored.rows], np.unique(scored.left_out).tolist()
    sources = [prepared.spec.sources[place].named() for place in groups if place != HELD_OUT]
    parts = ["the validation part"] * (HELD_OUT in groups) + ["sources left out in turn"] * bool(sources)
    return {
        "what": " and ".join(parts),
        "sources": sources,
        "yes": int(answers.sum()),
        "no": int((~answers).sum()),
    }


def _described(prepared: TrainingData, found: list[tuple[ClassifierHead, dict[str, Any]]]) -> ClassifierDescription:
    spec = prepared.spec
    card = make_card(prepared, {head.label: described for head, described in found})
    return ClassifierDescription(
        name=spec.name, form=spec.form, window=spec.window, ranks=spec.ranks, heads=tuple(head for head, _ in found), card=card
    )


# ---- The model card: a classifier's training data and how far to trust it, for programs (`card` in classifier.json) and for people
#
# It has no text of the data and nothing that differs between machines: files by name and sha256, no paths, no times.

CARD = "README.md"
#: Libraries that can change the model, its calibration or its measures.
LIBRARIES = ("fasttext-community", "numpy", "pyarrow", "scikit-learn", "scipy", "xxhash")


def make_card(prepared: TrainingData, labels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the card as JSON. `labels`: each label's part of the card (`_train_label`)."""
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
    """Returns the spec without the folders of the machine."""
    found = spec.model_dump(mode="json", exclude_none=True)
    for source in found["sources"]:
        source["files"] = [Path(path).name for path in source["files"]]
        source["weak"] = {label: Path(path).name for label, path in source["weak"].items()}
        for folder in {"run", "labelled"} & source.keys():
            source[folder] = Path(source[folder].rstrip("/")).name
    return found


def card_text(classifier: ClassifierDescription) -> str:
    """Returns the card in Markdown."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # Markdown, which `plain` escapes
    environment.filters |= {"plain": _without_markup, "n": "{:,}".format}
    template = environment.from_string(Path(__file__).with_name("card.md.jinja").read_text("utf-8"))
    files = [(source["name"], file) for source in classifier.card["data"]["sources"] for file in source["files"]]
    return template.render(dict(classifier), files=files) + "\n"


def _without_markup(text: str) -> str:
    """Escapes a name for Markdown: without markup, line breaks and unprintable characters."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    for character in "\\`*_{}[]<>|#&":
        shown = shown.replace(character, f"\\{character}") if character != "&" else shown.replace("&", "&amp;")
    return shown
