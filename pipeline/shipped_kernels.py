"""What kernels are compiled for, and the compiled kernels that a wheel brings along.

Kernels are compiled for x86-64-v3 (AVX2 and FMA, in processors since 2013) where the processor has it: so machines share them and round
alike, and a wheel can bring them. They are as fast as those for AVX-512 (docs/operations.md). Elsewhere they are compiled for the
machine's own processor.
"""

import os
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from corpusmill.pipeline.cache import kernels_folder
from corpusmill.pipeline.config import digest

TARGET = "x86-64-v3"
#: LLVM's names of what x86-64-v3 has and x86-64-v2 has not.
FEATURES = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
#: The archive in a wheel that `make wheel` has built; a checkout has none.
ARCHIVE = Path(__file__).with_name("kernels.tar.xz")


def choose_target() -> None:
    """Sets NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, also for child processes, where neither is set and the processor has x86-64-v3."""
    if {"NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"}.isdisjoint(os.environ):
        from llvmlite import binding

        features = binding.get_host_cpu_features()
        if all(features.get(name) for name in FEATURES):
            os.environ.update(NUMBA_CPU_NAME=TARGET, NUMBA_CPU_FEATURES="")


def made_for() -> list[str | None]:
    """Returns what compiled kernels depend on beside their code: the processor, and the versions of Python and of the compiler."""
    from llvmlite import binding

    choose_target()
    name = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    return [name, features, sys.implementation.cache_tag, *versions()]


def versions() -> list[str]:
    """Returns the versions of the compiler. Of numpy the first two numbers count: numba has functions of its own for each of those."""
    return [version("numba"), version("llvmlite"), ".".join(version("numpy").split(".")[:2])]


def _mark() -> str:
    return f"shipped-{digest(made_for())[:32]}.nbs"


def unpack() -> None:
    """Puts the wheel's kernels into the folder of compiled kernels, once. Does nothing where they were made for something else, or where
    the wheel has none."""
    if not ARCHIVE.exists() or (kernels_folder() / _mark()).exists():
        return
    folder = kernels_folder()
    with tarfile.open(ARCHIVE) as archive, tempfile.TemporaryDirectory(dir=folder) as temporary:
        if (first := archive.next()) is None or first.name != _mark():
            return
        archive.extractall(temporary, filter="data")
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == first.name):  # the mark comes last
            if not (folder / path.name).exists():
                os.utime(path)
                os.replace(path, folder / path.name)


def pack(archive: Path) -> None:
    """Writes the archive: the mark first, then all files of the folder of compiled kernels. `corpusmill warm --all` has compiled them."""
    folder = kernels_folder()
    mark = folder / _mark()
    mark.touch()
    with tarfile.open(archive, "w:xz") as file:
        for path in (mark, *sorted({*folder.glob("*.nb[ics]")} - {mark})):
            file.add(path, path.name)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
