"""Compares Megatron's files with those of megatron-core's builder."""

import numpy as np
import pytest
import torch


def test_the_bytes_are_those_of_megatrons_builder(any_run, exported, tmp_path):
    # imported here: it takes 8 s, and each process of the suite imports all test files
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    folder = exported(any_run, "megatron")
    dtype = np.uint16 if any_run.stream("train").itemsize == 2 else np.int32
    for split in ("train", "validation"):
        builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype)
        for document in any_run.documents(split):
            builder.add_document(torch.from_numpy(document.ids.astype(np.int64)), [len(document.ids)])
        builder.finalize(str(tmp_path / "theirs.idx"))
        for end in (".bin", ".idx"):
            assert (folder / f"{split}{end}").read_bytes() == (tmp_path / f"theirs{end}").read_bytes()
