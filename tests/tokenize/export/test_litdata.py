"""Tests litdata's chunks, read by its StreamingDataset as blocks, and compared with those of its BinaryWriter."""

import json

import numpy as np
import pytest
import torch

from corpusmill.tokenize.export import row_files as ours

litdata = pytest.importorskip("litdata", reason="litdata is not installed")

SPLITS = ("train", "validation")


def numbers(tensor):
    return tensor.to(torch.int64).tolist()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(ours, "CHUNK_BYTES", 50_000)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # their warning about the map that they copy from
def test_the_tokens_loader_reads_the_blocks_of_each_chunk(any_run, exported, small_chunks):
    folder, block = exported(any_run, "litdata"), 64
    for split in SPLITS:
        chunks = json.loads((folder / split / "index.json").read_text())["chunks"]
        data = litdata.StreamingDataset(str(folder / split), item_loader=litdata.TokensLoader(block_size=block))
        assert len(data) == sum(chunk["dim"] // block for chunk in chunks)
        stream, start, item = any_run.stream(split), 0, 0
        for chunk in chunks:
            for at in range(start, start + chunk["dim"] - block + 1, block):
                assert numbers(data[item]) == stream[at : at + block].tolist()
                item += 1
            start += chunk["dim"]
        assert (start, item) == (len(stream), len(data))
        assert len(list(data)) == len(data)


def test_the_bytes_are_those_of_litdatas_writer(any_run, exported, tmp_path):
    folder = exported(any_run, "litdata")
    for split in SPLITS:
        for number, shard in enumerate(any_run.shards(split).shards):  # a shard is smaller than a chunk here, so each is one chunk
            place = tmp_path / f"{split}-{number}"
            writer = litdata.streaming.writer.BinaryWriter(
                str(place), chunk_bytes=ours.CHUNK_BYTES, item_loader=litdata.TokensLoader(block_size=8)
            )
            documents = [document.ids for document in any_run.documents(split) if document.shard == number]
            for row, ids in enumerate(documents):
                writer[row] = torch.from_numpy(ids.astype(np.uint16 if ids.itemsize == 2 else np.int32))
            writer.done()
            writer.merge()
            theirs, found = (json.loads((where / "index.json").read_text()) for where in (place, folder / split))
            assert (place / "chunk-0-0.bin").read_bytes() == (folder / split / f"chunk-0-{number}.bin").read_bytes()
            assert {**theirs["chunks"][0], "filename": f"chunk-0-{number}.bin"} == found["chunks"][number]
            assert theirs["config"] == found["config"]
            assert shard.tokens == theirs["chunks"][0]["dim"]
