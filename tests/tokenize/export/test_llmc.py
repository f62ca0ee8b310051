"""Tests llm.c's files: the header as its data_common.py describes it, and each document after an END_OF_TEXT."""

import numpy as np

KINDS = {20240520: (1, np.uint16), 20240801: (7, np.uint32)}


def read(path):
    """Returns the ids of a file, read by its header."""
    content = path.read_bytes()
    header = np.frombuffer(content[:1024], np.int32)
    version, dtype = KINDS[int(header[0])]
    assert header[1] == version and not header[3:].any()
    ids = np.frombuffer(content[1024:], dtype)
    assert len(ids) == header[2]
    return ids


def test_each_document_lies_behind_end_of_text(any_run, exported):
    folder = exported(any_run, "llmc")
    for split, name in (("train", "train"), ("validation", "val")):
        files = sorted(folder.glob(f"tokens_{name}_*.bin"))
        assert len(files) == len(any_run.shards(split).shards)
        for number, path in enumerate(files):
            ids = read(path)
            parts = np.split(ids, np.flatnonzero(ids == 0))
            documents = [document.ids for document in any_run.documents(split) if document.shard == number]
            assert len(parts) == len(documents) + 1 and len(parts[0]) == 0
            assert all(part.tolist() == [0, *document[:-1].tolist()] for part, document in zip(parts[1:], documents))
