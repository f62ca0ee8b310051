"""The tensors of a training in files of which every rank writes one: the plans and the reader of torch.distributed.checkpoint.

DCP's plans say which piece of a tensor (plain or DTensor, on all ranks or on some) is written by which rank, each piece once, and its
HuggingFaceStorageReader fills the tensors of any other layout. Its HuggingFaceStorageWriter is left out, though the files are of its
form: it puts three entries into the metadata of safetensors, which have another order in every process, so equal states would have
other bytes; it makes a file in memory before it writes it; and it plans anew, with collectives, in every save.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, HuggingFaceStorageReader, Metadata
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from corpusmill.pipeline.errors import InputError
from corpusmill.train.files import first_line, write_tensors

#: Where DCP's reader looks for the place of each piece in its tensor.
OFFSETS = "DCP_SHARDING_INFO"
#: What DCP's reader raises of files that are no pieces, or damaged ones: it believes what their headers say.
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, AssertionError)


class RankTensors:
    """What one rank writes of tensors that all ranks hold; decided once, with `gather`, for tensors that keep names and shapes."""

    def __init__(self, tensors: Mapping[str, Tensor], rank: int, gather: Callable[[Any], list[Any]]):
        self.planner = DefaultSavePlanner(flatten_state_dict=False)
        self.planner.set_up_planner(dict(tensors), is_coordinator=rank == 0)
        plans, _ = self.planner.create_global_plan(gather(self.planner.create_local_plan()))
        self.items = [item for item in plans[rank].items if not _is_empty(item)]
        self.copies: dict[str, Tensor] = {}

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This rank's pieces by the names of their tensors."""
        self.planner.set_up_planner(dict(tensors))
        pieces = {item.index.fqn: self.planner.resolve_data(item) for item in self.items}
        return {name: piece.detach() for name, piece in pieces.items() if isinstance(piece, Tensor)}

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the pieces in CPU memory, which stay as they are until the next call: memory that is used again costs a fifth
        of new memory's time."""
        pieces = self.of(tensors)
        if not self.copies:
            self.copies = {name: torch.empty_like(t, device="cpu", pin_memory=t.is_cuda) for name, t in pieces.items()}
        for name, piece in pieces.items():
            self.copies[name].copy_(piece, non_blocking=True)
        if any(piece.is_cuda for piece in pieces.values()):
            torch.cuda.synchronize()
        return self.copies

    def write(self, path: Path, pieces: Mapping[str, Tensor]) -> None:
        """Writes them, and their places, durably. CorpusmillError names the file that can't be written."""
        places = {item.index.fqn: {"saved_offsets": list(item.index.offset or ())} for item in self.items}
        write_tensors(path, pieces, (OFFSETS, json.dumps(places, sort_keys=True)))


def _is_empty(item: Any) -> bool:
    """A rank that has no rows of a tensor with fewer rows than ranks; where the whole tensor is empty, that is kept."""
    return 0 in item.tensor_data.chunk.sizes and 0 not in item.tensor_data.size


def read_into(folder: Path, tensors: Mapping[str, Tensor], everywhere: set[str] | None = None) -> None:
    """Fills tensors (or this rank's parts of DTensors) in place from the pieces in `folder`, whoever wrote them.

    Raises InputError where the folder holds other tensors than `everywhere`, the names that all ranks have together; without it, more.
    """
    try:
        reader = HuggingFaceStorageReader(str(folder))
        metadata = reader.read_metadata()
        _check(folder, metadata, tensors, everywhere)
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner(dict(tensors), metadata)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        reader.read_data(planner.create_local_plan(), planner).wait()
    except UNREADABLE as error:
        raise InputError(f"{folder}: can't be read, perhaps cut short or damaged ({type(error).__name__}: {first_line(error)}).") from error


def read_named(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The whole tensors whose names begin with `prefix`, without it; in one process."""
    try:
        metadata = HuggingFaceStorageReader(str(folder)).read_metadata()
    except UNREADABLE as error:
        raise InputError(f"{folder}: can't be read, perhaps cut short or damaged ({type(error).__name__}: {first_line(error)}).") from error
    tensors = {name: torch.empty(t.size, dtype=t.properties.dtype) for name, t in _described(metadata).items() if name.startswith(prefix)}
    read_into(folder, tensors)
    return {name.removeprefix(prefix): tensors[name] for name in sorted(tensors)}


def _described(metadata: Metadata) -> dict[str, TensorStorageMetadata]:
    return {name: t for name, t in metadata.state_dict_metadata.items() if isinstance(t, TensorStorageMetadata)}


def _check(folder: Path, metadata: Metadata, tensors: Mapping[str, Tensor], everywhere: set[str] | None) -> None:
    saved = _described(metadata)
    if missing := sorted((everywhere or tensors.keys()) - saved.keys()):
        raise InputError(f"{folder}: {missing[0]} is missing ({len(missing)} in all): it holds the state of another model.")
    if everywhere and (surplus := sorted(saved.keys() - everywhere)):
        raise InputError(f"{folder}: holds {surplus[0]}, which this training does not have ({len(surplus)} such in all).")
    for name, tensor in tensors.items():
        size, dtype = list(saved[name].size), saved[name].properties.dtype
        if (size, dtype) != (list(tensor.shape), tensor.dtype):
            raise InputError(f"{folder}: {name} is {size} of {dtype}, and in this training {list(tensor.shape)} of {tensor.dtype}.")
