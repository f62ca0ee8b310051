"""`corpusmill --version`: the version, and the commit of the code."""

import subprocess
from pathlib import Path
from typing import Annotated

import typer

import corpusmill
from corpusmill.cli.base import app

#: The commit from which an installed package was built; setup.py writes the file.
COMMIT = Path(corpusmill.__file__).with_name("commit.txt")
CHECKOUT = COMMIT.parents[2]


def commit() -> str:
    """Returns the commit, with `-dirty` after it where files of the checkout have changed since; empty where nothing says it."""
    if COMMIT.exists():
        return COMMIT.read_text().strip()
    if not (CHECKOUT / ".git").exists():
        return ""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no git here
        return ""


def _show(wanted: bool) -> None:
    """Prints the version and ends the command."""
    if wanted:
        built_from = commit()
        print(f"corpusmill {corpusmill.__version__}" + (f" (commit {built_from})" if built_from else ""))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="Show version and commit.")] = False,
) -> None:
    """Options of the command itself."""
