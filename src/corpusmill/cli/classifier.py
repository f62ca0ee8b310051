"""Commands about text classifiers: training and evaluation."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from corpusmill.cli.base import classifier_app

Given = Annotated[
    list[str],
    typer.Argument(metavar="SPEC", help="A YAML spec, the name of one that ships, or labelled files, each a source.", show_default=False),
]
SpecSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the spec, for example sources.0.label_column=toxic."),
]


@classifier_app.command(
    epilog="Example: corpusmill classifier train labelled.jsonl.gz --set sources.0.label_column=toxic --output models/toxicity, "
    "or: corpusmill classifier train runs/edu --labels 'llm:edu>=3' --output models/edu"
)
def train(
    spec: Given,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new or empty folder for the classifier.", show_default=False)
    ],
    set_: SpecSets = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="llm:COLUMN>=N|llm:COLUMN=LABEL",
            help="Learn from what a language model said of the documents of a run, which stands in place of SPEC.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a text classifier on labelled files or by a spec. Its card says how far to trust it."""
    from corpusmill.filters.classifier.spec import name_of, read_spec
    from corpusmill.filters.classifier.train import train_classifier
    from corpusmill.report.queries.language_model import write_examples

    if labels is not None:
        examples = f"{str(output).rstrip('/')}.examples.parquet"
        print(f"{write_examples(spec, labels, examples)} Examples: {examples}", file=sys.stderr)
        spec = [examples]
    train_classifier(read_spec(spec, set_ or (), name_of(output)), output, lambda sentence: print(sentence, file=sys.stderr))


@classifier_app.command(
    epilog="Example: corpusmill classifier evaluate models/toxicity held_out.jsonl.gz --set sources.0.label_column=toxic, "
    "or: corpusmill classifier evaluate models/toxicity held_out.yaml"
)
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL_DIR", help="A classifier's folder, or `quality`, the built-in one.", show_default=False)
    ],
    spec: Given,
    set_: SpecSets = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object in place of the tables.")] = False,
) -> None:
    """Measure a classifier on labelled texts. AUC, precision, recall, calibration, by source and length, with intervals.

    Texts that it has learned from are left out.
    """
    from json import dumps

    from rich.console import Console
    from rich.markdown import Markdown

    from corpusmill.filters.classifier.card import evaluation_text, read_classifier
    from corpusmill.filters.classifier.evaluate import evaluate_files
    from corpusmill.filters.classifier.options import builtin
    from corpusmill.filters.classifier.spec import read_spec
    from corpusmill.report.queries.classifiers import doubts

    folder = Path(model) if os.path.exists(model) else builtin(model, lambda sentence: print(sentence, file=sys.stderr))
    classifier = read_classifier(folder)
    result = evaluate_files(folder, read_spec(spec, set_ or (), classifier.name, [head.label for head in classifier.heads]))
    if json:
        print(dumps(result, indent=2, allow_nan=False))
    else:
        Console().print(Markdown(evaluation_text(result, {label: doubts(found) for label, found in result["labels"].items()})))
