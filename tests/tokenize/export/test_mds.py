"""Tests MDS: the bytes that MDSWriter wrote, and samples read by MosaicML's StreamingDataset where it is installed."""

import json
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


@pytest.fixture
def streaming():
    return pytest.importorskip(
        "streaming", reason="mosaicml-streaming is not installed: it wants an older numpy and transformers (extra mds)"
    )


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


def test_mds_writer_writes_the_same_bytes(streaming, any_run, exported, tmp_path):
    folder = exported(any_run, "mds")
    for split in SPLITS:
        documents = any_run.documents(split)
        columns = {"id": "str", "url": "str", "tokens": f"ndarray:{documents[0].ids.dtype.name}"}
        with streaming.MDSWriter(columns=columns, out=str(tmp_path / split)) as writer:
            for document in documents:
                writer.write({"id": document.id, "url": document.url or "", "tokens": document.ids})
        theirs, ours = ({path.name: path.read_bytes() for path in place.iterdir()} for place in (tmp_path / split, folder / split))
        assert theirs == ours
