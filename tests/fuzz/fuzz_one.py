"""Fuzzes one target under atheris, until the time is up or an input breaks it: the process that `fuzz_all.py` starts.

python tests/fuzz/fuzz_one.py TARGET [options of libFuzzer] CORPUS
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import atheris
from fuzzing import LONGEST, Target, load, offline

import corpusmill

#: Libraries whose branches count too, by target; to instrument PyYAML's takes a minute.
LIBRARIES = {"recipe": ["yaml"]}
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def compiled() -> set[str]:
    """Returns modules with kernels, which must not be instrumented because numba compiles their bytecode."""
    root = Path(corpusmill.__file__).parent
    found = set()
    for folder, _, files in os.walk(root, followlinks=True):
        for path in (Path(folder) / name for name in files if name.endswith(".py")):
            if re.search("numba|@kernel", path.read_text()):
                found.add(".".join(("corpusmill", *path.relative_to(root).with_suffix("").parts)))
    return found


def keeping(target: Target, options: list[str]) -> Callable[[bytes], None]:
    """Wraps the target so that it keeps any input that raises: libFuzzer itself keeps only crashes, hangs and memory overflows."""
    prefix = next((option.partition("=")[2] for option in options if option.startswith("-artifact_prefix=")), "./")

    def fuzz(data: bytes) -> None:
        try:
            target.fuzz(data)
        except BaseException:
            Path(f"{prefix}crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}").write_bytes(data)
            raise

    return fuzz


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["corpusmill", *LIBRARIES.get(name, [])], exclude=sorted(compiled())):
        target = load(name)
        seeds = target.seeds()  # modules imported inside are instrumented, too
        for seed in seeds:
            target.fuzz(seed)
    corpus = Path(options[-1])
    for number, seed in enumerate([*seeds, *(path.read_bytes() for path in target.cases())]):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    atheris.Setup([sys.argv[0], f"-max_len={max(LONGEST, *(len(seed) for seed in seeds))}", *options], keeping(target, options))
    with offline():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
