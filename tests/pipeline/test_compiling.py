"""Tests that the kernels of a recipe are compiled before its stages need them, and that the list of kernels fits the code."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding
from numba import types

from corpusmill.pipeline import compiling, shipped_kernels
from corpusmill.pipeline.compiling import Compilation, listed, modules_of, numba_type
from corpusmill.pipeline.kernel import Kernel
from corpusmill.pipeline.recipe import read_recipe, recipe_path
from corpusmill.pipeline.shipped_kernels import FEATURES, choose_target, pack
from corpusmill.pipeline.stage import load_object
from corpusmill.pipeline.watch.progress import Progress

MODULE = "pipeline.packing"
PACK = """
import numpy as np
from corpusmill.train.data import fitted
print(fitted(np.array([5, 4, 3, 2]), 7))
"""


def test_each_line_of_the_list_is_a_kernel_with_types_for_its_arguments() -> None:
    lines = [json.loads(line) for each in listed().values() for _, line in each]
    assert len(lines) > 200
    for module, name, arguments in lines:
        kernel = getattr(import_module(f"corpusmill.{module}"), name)
        assert isinstance(kernel, Kernel) and len(arguments) <= len(inspect.signature(kernel.py_func).parameters)
        assert all(isinstance(numba_type(each), types.Type) for each in arguments)
        for given, fields in named_tuples(arguments):
            assert len(given) == len(fields), f"{module}.{name}: {fields} have changed; write the list anew (benchmarks/list_kernels.py)"


def named_tuples(arguments: list[Any]) -> Iterator[tuple[list[Any], tuple[str, ...]]]:
    """Yields the types of the items of each named tuple in a line of the list, and the names of its fields."""
    for each in arguments:
        if isinstance(each, dict):
            ((name, items),) = each.items()
            if name:
                yield items, load_object(name)._fields
            yield from named_tuples(items)


def test_a_stage_needs_the_kernels_of_its_steps_alone() -> None:
    sections = read_recipe(recipe_path("fineweb"), [])
    needed = modules_of("filter", sections["filter"])
    assert {"filters.statistics", "filters.c4", "text.spacy_tokens"} <= set(needed)
    assert not {"filters.compat.dolma", "dedup.shingles", "tokenize.words", "ingest.html.walk"} & set(needed)
    assert "ingest.html.walk" in modules_of("ingest", sections["ingest"])


@pytest.mark.long
def test_processes_compile_what_is_listed_once_and_nothing_is_left_for_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    said: list[str] = []
    compilation = Compilation({"sft": [MODULE]}, said.append)
    compilation.wait("ingest", Progress(False))  # needs none
    compilation.wait("sft", Progress(False))
    assert not compilation.left.total()
    compilation.close()
    there = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.nb[ic]")}
    assert there and f"compiling {compilation.total} kernels, once for this machine" in said[0]
    done = subprocess.run([sys.executable, "-c", PACK], env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout == "[[0, 3], [1, 2]]\n"
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.nb[ic]")} == there
    again = Compilation({"sft": [MODULE]}, said.append)
    again.wait("sft", Progress(False))
    assert again.total == 0 and again.processes == []
    archive, elsewhere = tmp_path / "kernels.tar.xz", tmp_path / "elsewhere"
    pack(archive)
    monkeypatch.setattr(shipped_kernels, "ARCHIVE", archive)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(elsewhere))
    assert Compilation({"sft": [MODULE]}, said.append).total == 0  # the wheel brings them
    code = f"from corpusmill.pipeline import shipped_kernels\nshipped_kernels.ARCHIVE = shipped_kernels.Path({str(archive)!r})\n{PACK}"
    shipped = {path.name: path.stat().st_mtime_ns for path in elsewhere.glob("*.nb[ic]")}
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True)
    assert done.stdout == "[[0, 3], [1, 2]]\n" and shipped.keys() == there.keys()
    assert {path.name: path.stat().st_mtime_ns for path in elsewhere.glob("*.nb[ic]")} == shipped
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "generic"))
    assert Compilation({"sft": [MODULE]}, said.append).total == compilation.total  # for another processor nothing is there
    assert not list((tmp_path / "generic").iterdir())


@pytest.mark.parametrize(("features", "given", "target"), [
    (FEATURES, {}, ("x86-64-v3", "")),
    (FEATURES[1:], {}, (None, None)),  # an older processor, or none of this family
    (FEATURES, {"NUMBA_CPU_NAME": "haswell"}, ("haswell", None)),
    (FEATURES, {"NUMBA_CPU_FEATURES": "+avx"}, (None, "+avx")),
])  # fmt: skip
def test_kernels_are_for_one_target_unless_the_user_or_the_processor_wants_another(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], given: dict[str, str], target: tuple[str | None, str | None]
) -> None:
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.setenv(name, "")  # so that monkeypatch takes back what the call sets
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
    choose_target()
    assert (os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")) == target


def test_a_process_that_dies_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling.sys, "executable", "/bin/false")
    compilation = Compilation({"sft": [MODULE]}, print)
    compilation.wait("sft", Progress(False))
    compilation.close()
    assert list(tmp_path.glob("*.nb*")) == []
