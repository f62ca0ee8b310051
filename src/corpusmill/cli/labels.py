"""Commands about the labels that people give to documents: export and import."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from corpusmill.cli.base import RunFolder, labels_app


@labels_app.command("export", epilog="Example: corpusmill labels export runs/demo --format label-studio --output tasks.json")
def export(
    run: RunFolder,
    format_: Annotated[Literal["jsonl", "label-studio", "argilla"], typer.Option("--format", help="The format of the file.")] = "jsonl",
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; else standard output.", show_default=False)
    ] = None,
) -> None:
    """Write the labels of a run to a file. With their texts, for JSONL, Label Studio or Argilla."""
    import sys

    from corpusmill.pipeline.errors import InputError
    from corpusmill.report.label_files import export_labels

    content, count, left_out = export_labels(run, format_)
    if output is None:
        sys.stdout.write(content)
    else:
        try:
            output.write_text(content, "utf-8")
        except OSError as error:
            raise InputError(f"{output}: can't be written ({error.strerror}).") from error
        print(f"{output}: {count:,} labels written.")
    if left_out:
        print(f"Note: {left_out:,} labels are left out, because their texts have changed; --format jsonl has them, too.", file=sys.stderr)


@labels_app.command("import", epilog="Example: corpusmill labels import runs/demo tasks.json --as anna")
def import_(
    run: RunFolder,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labels in JSONL, or as Label Studio or Argilla export them.")],
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Who gave the labels, where the file does not say; else the login name.", show_default=False
        ),
    ] = None,
) -> None:
    """Add the labels of a file to a run. Where a person has labelled a document twice, the later label counts."""
    import sys

    from corpusmill.filters.labels import login_name
    from corpusmill.pipeline.safe import safe_line
    from corpusmill.report.label_files import import_labels

    count, unknown = import_labels(run, file, as_ or login_name())
    print(f"{count:,} labels read.")
    if unknown:
        shown = ", ".join(safe_line(id_, 60) for id_ in unknown[:3])
        print(f"Note: the run does not have {len(unknown):,} of the documents ({shown}, ...); their labels are left out.", file=sys.stderr)
