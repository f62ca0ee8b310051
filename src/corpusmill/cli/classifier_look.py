"""Commands that apply a text classifier to files: to learn how good it is, or for its scores."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from corpusmill.cli.base import classifier_app
from corpusmill.cli.classifier import Inputs, ManyValues

Model = Annotated[
    str, typer.Argument(metavar="MODEL_DIR", help="A classifier's folder, or `quality`, the built-in one.", show_default=False)
]
TextColumn = Annotated[str, typer.Option(metavar="NAME", help="Of JSONL and Parquet: the column of the texts.")]


def _folder(model: str) -> Path:
    """The classifier's folder; a built-in one is trained where it is not there yet."""
    from corpusmill.filters.classifier.builtin import builtin
    from corpusmill.filters.classifier.step import BUILTIN, NO_MODEL

    if model not in (*BUILTIN, *NO_MODEL) or Path(model).exists():
        return Path(model)
    return builtin(model, lambda sentence: print(sentence, file=sys.stderr))


@classifier_app.command(
    cls=ManyValues,
    epilog="Example: corpusmill classifier evaluate models/toxicity labelled/*.jsonl.gz --label-column toxic --page toxicity.html, "
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
        str | None, typer.Option(metavar="FILE", help="The sources of a YAML spec: docs/classifiers.md.", show_default=False)
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
    page: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with charts, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the tables.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    resamples: Annotated[int, typer.Option(min=10, max=100_000, help="Of the bootstrap.")] = 1000,
) -> None:
    """Measure a classifier on labelled texts: AUC, precision, recall, calibration, by source and length, with intervals."""
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
    evaluation = evaluate_files(folder, sources, unseen=unseen, seed=seed, resamples=resamples)
    if json:
        print(dumps(evaluation.result, indent=2, allow_nan=False))
    else:
        show_evaluation(evaluation.result, Console(highlight=False))
    if page:
        from corpusmill.report.classifier_evaluation import write_page

        write_page(evaluation, page)
        if not json:
            print(f"The page: {page}")


@classifier_app.command(epilog="Example: corpusmill classifier score models/toxicity runs/demo/ingest/data --output scores.parquet")
def score(
    model: Model,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="JSONL, Parquet or text files, folders or globs.", show_default=False)
    ],
    output: Annotated[str, typer.Option(metavar="FILE", help="The Parquet file to write.", show_default=False)],
    text_column: TextColumn = "text",
    id_column: Annotated[
        str, typer.Option(metavar="NAME", help="Of JSONL and Parquet: a column that goes along, where there is one.")
    ] = "id",
) -> None:
    """Score the texts of files: a row each, with every label's score, raw score, share of windows, and answer."""
    from corpusmill.filters.classifier.score import score_files
    from corpusmill.pipeline.safe import safe_line

    counts = score_files(_folder(model), files, output, text_column, id_column)
    texts, without = counts.pop("texts"), counts.pop("without_score")
    answers = ", ".join(f"{safe_line(label, 64)} {count:,}" for label, count in counts.items())
    print(f"{texts:,} texts, {without:,} of them with nothing that the classifier knows; answered yes: {answers}. Written: {output}")
