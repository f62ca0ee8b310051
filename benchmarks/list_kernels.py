"""Writes the list of the kernels that are compiled beforehand, pipeline/kernels.json, from folders of compiled kernels.

    NUMBA_CACHE_DIR=/tmp/kernels corpusmill run ...      # or tests: whatever calls kernels as users do
    python benchmarks/list_kernels.py /tmp/kernels ... [--keep]

Kernels that call no other stand first, then those that call them, and so on. Left out are kernels that are always inlined,
and constants as types: the kernels that have these arguments compile them. With `--keep`, what the list has stays in it.
"""

import argparse
import json
import pickle
import re
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import types

import corpusmill
from corpusmill.pipeline.compiling import LIST
from corpusmill.pipeline.kernel import Kernel, content, depth

#: The digest in the name of an entry.
DIGEST = re.compile(r"-([0-9a-f]{32})\.")
ROOMS = ("pipeline", "text", "ingest", "filters", "dedup", "tokenize", "train")


def declared() -> dict[str, tuple[int, str, str]]:
    """Returns depth, module and name of each kernel by the digest of what is compiled into it."""
    found, root = {}, Path(corpusmill.__file__).parent
    for path in sorted(path for room in ROOMS for path in (root / room).resolve().rglob("*.py")):
        if "pipeline.kernel import" in path.read_text():
            module = import_module(f"corpusmill.{path.relative_to(root.resolve().parents[1]).with_suffix('').as_posix().replace('/', '.')}")
            for name, kernel in vars(module).items():
                ours = isinstance(kernel, Kernel) and kernel.py_func.__module__ == module.__name__
                if ours and kernel.targetoptions.get("inline") != "always":
                    found[content(kernel)] = depth(kernel.py_func), module.__name__.removeprefix("corpusmill."), name
    return found


def named(given: types.Type) -> Any:
    """Returns a type as it stands in the list (`compiling.numba_type`). Raises ValueError for one that can't stand there."""
    if isinstance(given, types.Array):
        return f"{named(given.dtype)} {given.ndim} {given.layout}{'' if given.mutable else ' const'}"
    if isinstance(given, types.BaseTuple):
        made = getattr(given, "instance_class", None)
        return {f"{made.__module__}:{made.__qualname__}" if made else "": [named(each) for each in given.types]}
    if isinstance(given, types.Number | types.Boolean) and not isinstance(given, types.Literal):
        return str(given)
    raise ValueError(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    kernels = declared()
    rows = json.loads(LIST.read_text()) if given.keep else []
    for folder in given.folders:
        for path in Path(folder).glob("*.nbi"):
            if (digest := DIGEST.findall(path.name)[0]) in kernels:
                with open(path, "rb") as file:
                    pickle.load(file)  # noqa: S301 - numba's version, from our own cache
                    for signature, *_ in pickle.loads(file.read())[1]:  # noqa: S301
                        with suppress(ValueError):
                            row = [*kernels[digest][1:], [named(each) for each in signature]]
                            rows += [row] if row not in rows else []
    depths = {(module, name): depth for depth, module, name in kernels.values()}
    rows = sorted((row for row in rows if (row[0], row[1]) in depths), key=lambda row: (depths[row[0], row[1]], json.dumps(row)))
    LIST.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    print(f"{len(rows)} kernels of {len({module for module, *_ in rows})} modules in {LIST}")


if __name__ == "__main__":
    main()
