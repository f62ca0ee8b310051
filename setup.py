"""Writes the commit into each wheel and source distribution, for `corpusmill --version`. pyproject.toml says everything else."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
NAME = "corpusmill/commit.txt"


def commit() -> str:
    """Returns the commit of the checkout or of the unpacked source distribution; empty where nothing says it."""
    written = HERE / "src" / NAME
    if written.exists():
        return written.read_text()
    if not (HERE / ".git").exists():
        return ""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:  # no git here
        return ""


class Build(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode and commit():
            (Path(self.build_lib) / NAME).write_text(commit())


class SourceArchive(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if commit():
            (Path(base_dir) / "src" / NAME).write_text(commit())


setup(cmdclass={"build_py": Build, "sdist": SourceArchive})
