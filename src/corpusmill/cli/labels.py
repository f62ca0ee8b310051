"""The command about the labels that people give to documents."""

from typing import Annotated

import typer

from corpusmill.cli.base import RunFolder, app


@app.command(epilog="Example: corpusmill labels runs/demo > labels.jsonl, or: corpusmill labels runs/demo judged.jsonl --as anna")
def labels(
    run: RunFolder,
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="Labels to add, as lines of JSON; without it, the labels are printed.", show_default=False),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Who gave the labels, where the file does not say; else the login name.", show_default=False
        ),
    ] = None,
) -> None:
    """Print the labels of a run, or add those of a file. They come with their texts. The later label of a person counts."""
    import sys

    from corpusmill.filters.labels import login_name
    from corpusmill.pipeline.errors import InputError
    from corpusmill.pipeline.names import counted
    from corpusmill.pipeline.safe import safe_line
    from corpusmill.report.label_files import label_lines, read_labels_into

    if file is None:
        lines = [*label_lines(run)]
        sys.stdout.writelines(lines)
        if not lines:
            print(f"{run}: no document has a label yet; corpusmill explore {run} --write gives them.", file=sys.stderr)
        return
    count, unknown = read_labels_into(run, file, as_ or login_name())
    shown = ", ".join([*(safe_line(id_, 60) for id_ in unknown[:3]), *(["..."] if unknown[3:] else [])])
    if unknown and not count:
        raise InputError(f"{file}: the run does not have its {counted(len(unknown), 'document')} ({shown}), so no label was read.")
    print(f"{counted(count, 'label')} read.")
    if unknown:
        print(f"Note: the run does not have {len(unknown):,} of the documents ({shown}); their labels are left out.", file=sys.stderr)
