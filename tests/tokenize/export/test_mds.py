"""Tests MDS: the bytes that MDSWriter wrote, and samples read by MosaicML's StreamingDataset where it is installed."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.tokenize.export.row_files import ShardFiles, document_samples

SPLITS = ("train", "validation")
#: Output of mosaicml-streaming 0.13.0's MDSWriter for DOCUMENTS with size_limit=1500 (columns id, url: str; tokens: ndarray:uint16).
WRITTEN = Path(__file__).parent / "mds"
DOCUMENTS = [("a", "http://a.test/é", 3), ("b", "", 255), ("c" * 32, "http://c.test/", 256), ("d", "x", 700), ("e", "", 1)]


def test_the_bytes_are_those_of_mds_writer(tmp_path):
    arrays = [(np.arange(size) * 7 % 65521).astype(np.uint16) for _, _, size in DOCUMENTS]
    table = pa.table({"id": [name for name, _, _ in DOCUMENTS], "url": [url or None for _, url, _ in DOCUMENTS]})
    ends = np.cumsum([len(array) for array in arrays])
    files = ShardFiles(tmp_path, {"id": "str", "tokens": "ndarray:uint16", "url": "str"}, size_limit=1500)
    for sample in document_samples(SimpleNamespace(tokens=np.concatenate(arrays), documents=table, ends=lambda: ends)):
        files.add(sample)
    files.finish()
    written = {path.name: path.read_bytes() for path in WRITTEN.iterdir()}
    assert len(written) == 4
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written


def test_a_sample_above_the_limit_is_a_shard_of_its_own(tmp_path):
    files = ShardFiles(tmp_path, {"tokens": "bytes"}, size_limit=500)
    for sample in (bytes(600), bytes(10), bytes(900), bytes(10)):
        files.add(sample)
    files.finish()
    index = json.loads((tmp_path / "index.json").read_text())
    assert [shard["samples"] for shard in index["shards"]] == [1, 1, 1, 1]
    for shard in index["shards"]:
        assert (tmp_path / shard["raw_data"]["basename"]).stat().st_size == shard["raw_data"]["bytes"]


def samples(folder):
    """Yields position and ids of each sequence, read by the parts of an MDS shard: sizes of columns, fixed columns, arrays with a head."""
    for shard in json.loads((folder / "index.json").read_text())["shards"]:
        assert (shard["column_names"], shard["column_encodings"][0], shard["column_sizes"]) == (["position", "tokens"], "int", [8, None])
        content = (folder / shard["raw_data"]["basename"]).read_bytes()
        offsets = np.frombuffer(content, "<u4", shard["samples"] + 1, 4)
        for begin, end in zip(offsets.tolist(), offsets[1:].tolist()):
            size, position, head = struct.unpack_from("<IqB", content, begin)
            of_size = {4: "<B", 5: "<H", 6: "<I"}[head]
            (number,) = struct.unpack_from(of_size, content, begin + 13)
            ids = np.frombuffer(content[begin + 13 + struct.calcsize(of_size) : end], shard["column_encodings"][1].removeprefix("ndarray:"))
            assert end - begin == 12 + size and len(ids) == number
            yield position, ids


@pytest.mark.parametrize("length", [64, 300])
def test_sequences_are_windows_of_the_shards(any_run, exported, length):
    folder = exported(any_run, "mds", sequence_length=length)
    for split in SPLITS:
        shards, found = any_run.shards(split), list(samples(folder / split))
        assert [position for position, _ in found] == list(range(0, shards.total, length))
        for position, ids in found:
            assert ids.dtype == shards.dtype and np.array_equal(ids, shards.window(position, min(length, shards.total - position)))
