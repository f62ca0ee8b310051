"""Tests Megatron's files, read by megatron-core's IndexedDataset and compared with those of its builder."""

import numpy as np
import pytest
import torch

indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")

SPLITS = ("train", "validation")


def test_the_bytes_are_those_of_megatrons_builder(any_run, exported, tmp_path):
    folder = exported(any_run, "megatron")
    dtype = np.uint16 if any_run.stream("train").itemsize == 2 else np.int32
    for split in SPLITS:
        builder = indexed.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype)
        for document in any_run.documents(split):
            builder.add_document(torch.from_numpy(document.ids.astype(np.int64)), [len(document.ids)])
        builder.finalize(str(tmp_path / "theirs.idx"))
        for end in (".bin", ".idx"):
            assert (folder / f"{split}{end}").read_bytes() == (tmp_path / f"theirs{end}").read_bytes()


class Tokenizer:
    """The attributes that GPTDataset needs of a tokenizer."""

    eod, pad, vocab_size, unique_identifiers = 0, 1, 600, {"tokenizer": "ours"}


def test_megatrons_gpt_dataset_trains_on_every_token(real_run, exported, tmp_path):
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import Split

    prefix, length = str(exported(real_run, "megatron") / "train"), 128
    config = GPTDatasetConfig(
        random_seed=1, sequence_length=length, blend=([prefix], None), split="1,0,0", path_to_cache=str(tmp_path / "cache"),
        reset_position_ids=True, reset_attention_mask=False, eod_mask_loss=False, tokenizer=Tokenizer(), mid_level_dataset_surplus=0.005,
    )  # fmt: skip
    low = GPTDataset.build_low_level_dataset(prefix, config)
    documents = real_run.documents("train")
    data = GPTDataset(low, prefix, np.arange(GPTDataset.numel_low_level_dataset(low), dtype=np.int32), None, Split.train, config)
    stream = np.concatenate([documents[number].ids for number in data.document_index])
    assert len(stream) == len(real_run.stream("train")) and len(data) == (len(stream) - 1) // length
    for number in range(len(data)):
        sample, start = data[number], int(data.shuffle_index[number]) * length
        assert sample["tokens"].tolist() == stream[start : start + length].tolist()
        assert sample["labels"].tolist() == stream[start + 1 : start + length + 1].tolist()
