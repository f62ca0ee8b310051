"""Writes the commit into each wheel and source distribution, for `corpusmill --version`, and the kernels of `make wheel-kernels` into its
wheel. pyproject.toml says everything else."""

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
NAME = "corpusmill/commit.txt"
#: The kernels that `make wheel-kernels` has compiled, and their place in the wheel (`pipeline/shipped_kernels.py`).
KERNELS, SHIPPED = HERE / "build/kernels.tar.xz", "corpusmill/pipeline/kernels.tar.xz"


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
        if not self.editable_mode and KERNELS.exists():
            shutil.copy(KERNELS, Path(self.build_lib) / SHIPPED)


class Wheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        """Kernels fit one version of Python: pip takes the wheel of another kind elsewhere, which has none."""
        return (f"cp3{sys.version_info.minor}", "none", "manylinux_2_28_x86_64") if KERNELS.exists() else super().get_tag()


class SourceArchive(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if commit():
            (Path(base_dir) / "src" / NAME).write_text(commit())


setup(cmdclass={"build_py": Build, "bdist_wheel": Wheel, "sdist": SourceArchive})
