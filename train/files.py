"""Folders that appear whole or not at all, and safetensors in them; what goes wrong is one sentence."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import TEMPORARY, fsync_folder


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` (in place of one that is there) when the block ends well, and is removed when not."""
    temporary = temporary_folder(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror}).") from error
    try:
        yield temporary
        finish_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def temporary_folder(target: Path) -> Path:
    """Where what will be `target` is written."""
    return target.with_name(f"{TEMPORARY}{target.name}")


def finish_folder(temporary: Path, target: Path) -> None:
    """Makes the temporary folder durable as `target`."""
    try:
        fsync_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        fsync_folder(target.parent)
    except OSError as error:
        raise CorpusmillError(f"{target}: can't be written ({error.strerror}).") from error


def write_file(path: Path, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CorpusmillError(f"{path}: can't be written ({error.strerror}).") from error


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=2, sort_keys=True).encode() + b"\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: tuple[str, str] = ("format", "pt")) -> None:
    """A safetensors file with one entry of metadata: several would lie in another order each time, so equal tensors had other bytes."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.touch()
        mode = path.stat().st_mode  # safetensors makes files that nobody else can read
        save_file(ready, path, metadata=dict([metadata]))
        path.chmod(mode)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise CorpusmillError(f"{path}: can't be written ({first_line(error)}).") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a whole safetensors file, perhaps cut short ({first_line(error)}).") from error


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
