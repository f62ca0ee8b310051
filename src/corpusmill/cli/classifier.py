"""Commands about text classifiers: training, evaluation, scores of files."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from corpusmill.cli.base import classifier_app

if TYPE_CHECKING:
    from corpusmill.filters.classifier.spec import TrainingSpec


Inputs = Annotated[list[str] | None, typer.Option(metavar="FILE", help="Files, folders or globs.", show_default=False)]


class ManyValues(TyperCommand):
    """Reads `--data A B C` as `--data A --data B --data C`, so that users can give a shell's globs."""

    many = ("--data", "--positive", "--negative", "--labels")

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        written: list[str] = []
        option, values = "", 0
        for arg in args:
            if arg.startswith("-"):
                option, values = (arg, 0) if arg in self.many else ("", 0)
            elif option and values:
                written.append(option)
            if option and not arg.startswith("-"):
                values += 1
            written.append(arg)
        return super().parse_args(ctx, written)


@classifier_app.command(
    cls=ManyValues,
    epilog="Example: corpusmill classifier train --data labelled/*.jsonl.gz --label-column toxic --output models/toxicity, "
    "or: corpusmill classifier train --positive articles/ --negative crawl.parquet --output models/quality",
)
def train(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder for the classifier.", show_default=False)],
    data: Inputs = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="RUN", help="A run whose documents people have labelled.", show_default=False)
    ] = None,
    positive: Inputs = None,
    negative: Inputs = None,
    spec: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML spec: docs/stages/classifiers.md.", show_default=False)] = None,
    label_column: Annotated[str | None, typer.Option(metavar="NAME", help="Of --data: the column of the answers.")] = None,
    text_column: Annotated[str | None, typer.Option(metavar="NAME", help="The column of the texts.")] = None,
    positive_label: Annotated[
        str | None,
        typer.Option(metavar="VALUE", help="Of --data and --labels: the value that means yes; default: the greater of two values."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The classifier's name; the folder's without.")] = None,
    form: Annotated[
        Literal["plain", "lower", "words"] | None, typer.Option(help="How texts are written for fastText.", show_default=False)
    ] = None,
    window: Annotated[int | None, typer.Option(min=1, metavar="WORDS", help="Score documents by windows of so many words.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split, the order and the training.")] = None,
    autotune: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="How long fastText searches for arguments.")] = None,
    calibration: Annotated[
        Literal["platt", "isotonic", "none"] | None, typer.Option(help="How scores become probabilities.", show_default=False)
    ] = None,
    threshold_rule: Annotated[str | None, typer.Option(metavar="RULE", help="best_f1, precision=.9 or kept=.1.")] = None,
    compress: Annotated[
        bool | None, typer.Option("--compress/--no-compress", help="A small .ftz, or a .bin that is exact.", show_default=False)
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="The model's licence, for its card.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the classifier in that folder.")] = False,
) -> None:
    """Train a text classifier. On labelled files or runs, positive and negative files, or by a spec; its card says how far to trust it."""
    from rich.console import Console

    from corpusmill.filters.classifier.train import check_target, train_classifier

    console = Console(highlight=False, soft_wrap=True, stderr=True)

    def print_message(sentence: str) -> None:
        console.print(sentence, markup=False)

    given: dict[str, Any] = {
        "name": name,
        "form": form,
        "window": window,
        "seed": seed,
        "autotune": autotune or None,
        "calibration": calibration,
        "threshold_rule": threshold_rule,
        "compress": compress,
        "licence": licence,
    }
    options = {key: value for key, value in given.items() if value is not None}
    columns = {"--label-column": label_column, "--text-column": text_column, "--positive-label": positive_label}
    check_target(output, force)
    made = _spec(output, spec, data or [], labels or [], positive or [], negative or [], columns, options, print_message)
    train_classifier(made, output, print_message, force)


def _spec(
    output: Path,
    spec: str | None,
    data: list[str],
    labelled: list[str],
    positive: list[str],
    negative: list[str],
    columns: dict[str, str | None],
    options: dict[str, Any],
    on_message: Callable[[str], None],
) -> "TrainingSpec":
    """Returns the spec from the options, which must have exactly one form: --spec, --data, --labels, or --positive and --negative."""
    from corpusmill.filters.classifier.from_options import classifier_name, spec_of_classes, spec_of_data, spec_of_labels
    from corpusmill.filters.classifier.spec import read_spec
    from corpusmill.pipeline.errors import InputError

    forms = [bool(spec), bool(data), bool(labelled), bool(positive or negative)]
    if sum(forms) != 1:
        raise InputError("classifier train: give --data, --labels, or --positive and --negative, or --spec.")
    useful = columns.keys() if data else ["--positive-label"] if labelled else [] if spec else ["--text-column"]
    useless = [name for name, value in columns.items() if value is not None and name not in useful]
    if useless:
        raise InputError(f"classifier train: {useless[0]} has no meaning here.")
    if spec:
        return read_spec(spec, options)
    named = {"name": classifier_name(output), **options}
    text_column = columns["--text-column"] or "text"
    if data:
        made, explanation = spec_of_data(data, text_column, columns["--label-column"] or "label", columns["--positive-label"], named)
        on_message(explanation)
        return made
    if labelled:
        made, explanation = spec_of_labels(labelled, columns["--positive-label"], named)
        on_message(explanation)
        return made
    if not positive or not negative:
        raise InputError("classifier train: --positive and --negative go together.")
    return spec_of_classes(positive, negative, text_column, named)


Model = Annotated[
    str, typer.Argument(metavar="MODEL_DIR", help="A classifier's folder, or `quality`, the built-in one.", show_default=False)
]
TextColumn = Annotated[str, typer.Option(metavar="NAME", help="Of JSONL and Parquet: the column of the texts.")]


def _folder(model: str) -> Path:
    """Returns the classifier's folder. Trains a built-in classifier that is not in the cache yet."""
    from corpusmill.filters.classifier.builtin import builtin
    from corpusmill.filters.classifier.step import BUILTIN, NO_MODEL
    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.names import instead_of

    if os.path.exists(model):
        return Path(model)
    if model not in (*BUILTIN, *NO_MODEL):
        raise InputError(f"{model}: no such folder or built-in classifier{instead_of(model, BUILTIN)}.")
    return builtin(model, lambda sentence: print(sentence, file=sys.stderr))


@classifier_app.command(
    cls=ManyValues,
    epilog="Example: corpusmill classifier evaluate models/toxicity labelled/*.jsonl.gz --label-column toxic, "
    "or: corpusmill classifier evaluate models/quality --positive articles/ --negative crawl.parquet",
)
def evaluate(
    model: Model,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Labelled files, folders or globs (JSONL, Parquet).", show_default=False)
    ] = None,
    positive: Inputs = None,
    negative: Inputs = None,
    spec: Annotated[
        str | None, typer.Option(metavar="FILE", help="The sources of a YAML spec: docs/stages/classifiers.md.", show_default=False)
    ] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The column of the answers (label without); or LABEL=NAME, several times.", show_default=False),
    ] = None,
    text_column: TextColumn = "text",
    positive_label: Annotated[
        str | None, typer.Option(metavar="VALUE", help="The value of --label-column that means yes; all others mean no.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The label that the answers are for, where the classifier has several.")] = None,
    unseen: Annotated[bool, typer.Option("--unseen", help="Leave out texts that the classifier has learned from.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the tables.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(min=10, max=100_000, help="Resamples of the bootstrap.")] = 1000,
) -> None:
    """Measure a classifier on labelled texts. AUC, precision, recall, calibration, by source and length, with intervals."""
    from json import dumps

    from rich.console import Console

    from corpusmill.filters.classifier.card import read_classifier
    from corpusmill.filters.classifier.evaluate import evaluate_files
    from corpusmill.filters.classifier.from_options import classed_sources, labelled_sources, only_label
    from corpusmill.filters.classifier.spec import read_spec
    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.classifier_evaluation import show_evaluation

    if sum([bool(spec), bool(files), bool(positive or negative)]) != 1:
        raise InputError("classifier evaluate: give labelled files, or --positive and --negative, or --spec.")
    columns = {"--label-column": label_column, "--positive-label": positive_label}
    useless = [name for name, value in columns.items() if value is not None and not files]
    if useless or (spec and label):
        raise InputError(f"classifier evaluate: {useless[0] if useless else '--label'} has no meaning here.")
    folder = _folder(model)
    classifier = read_classifier(folder)
    if spec:
        sources = list(read_spec(spec).sources)
    elif files:
        sources = labelled_sources(classifier, files, label_column or ["label"], text_column, positive_label, label)
    else:
        only_label(classifier, label)
        sources = classed_sources(classifier, positive or [], negative or [], text_column, label)
    result = evaluate_files(folder, sources, unseen=unseen, seed=seed, resamples=resamples)
    if json:
        print(dumps(result, indent=2, allow_nan=False))
    else:
        show_evaluation(result, Console(highlight=False))


@classifier_app.command(epilog="Example: corpusmill classifier score models/toxicity runs/demo/ingest/data --output scores.parquet")
def score(
    model: Model,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSONL, Parquet or text files, folders or globs.", show_default=False)
    ],
    output: Annotated[str, typer.Option(metavar="FILE", help="The Parquet file to write.", show_default=False)],
    text_column: TextColumn = "text",
    id_column: Annotated[
        str, typer.Option(metavar="NAME", help="Of JSONL and Parquet: a column that is copied to the output, if it exists.")
    ] = "id",
) -> None:
    """Score the texts of files. A row each, with every label's score, raw score, share of windows, and answer."""
    from corpusmill.filters.classifier.score import score_files
    from corpusmill.pipeline.safe import safe_line

    counts = score_files(_folder(model), files, output, text_column, id_column)
    texts, without = counts.pop("texts"), counts.pop("without_score")
    answers = ", ".join(f"{safe_line(label, 64)} {count:,}" for label, count in counts.items())
    print(f"{texts:,} texts, {without:,} of them with nothing that the classifier knows; answered yes: {answers}. Written: {output}")
