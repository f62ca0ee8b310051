"""Tests datatrove's files, read by its datasets and its merger, and compared with those of its TokenizedFile."""

import numpy as np
from datatrove.pipeline.tokens.tokenizer import TokenizedFile
from datatrove.utils.dataset import DatatroveFolderDataset

SPLITS = ("train", "validation")


def files(folder, split):
    return sorted((folder / split).glob("*.ds"))


def documents_by_shard(run, split):
    documents = run.documents(split)
    return [[found for found in documents if found.shard == number] for number in range(len(run.shards(split).shards))]


def test_the_folder_dataset_reads_the_windows_of_each_shard(any_run, exported):
    folder, length = exported(any_run, "datatrove"), 1023
    for split in SPLITS:
        shards = any_run.shards(split)
        data = DatatroveFolderDataset(str(folder / split), length, token_size=shards.dtype.itemsize, return_positions=True)
        assert len(data) == sum(shard.tokens // (length + 1) for shard in shards.shards)
        item = 0
        for number, documents in enumerate(documents_by_shard(any_run, split)):
            ids = shards.tokens(number)
            positions = np.concatenate([np.arange(len(document.ids)) for document in documents])
            for start in range(0, len(ids) - length, length + 1):
                found, stop = data[item], start + length + 1
                assert found["input_ids"].tolist() == ids[start:stop].tolist()
                wanted = positions[start:stop].copy()
                wanted[: np.argmax(wanted == 0) if 0 in wanted else len(wanted)] -= wanted[0]  # they count from the window's start
                assert found["positions"].tolist() == wanted.tolist()
                item += 1
        assert item == len(data)


def test_the_bytes_are_those_of_datatroves_writer(any_run, exported, tmp_path):
    folder = exported(any_run, "datatrove")
    for split in SPLITS:
        for path, documents in zip(files(folder, split), documents_by_shard(any_run, split), strict=True):
            size = any_run.shards(split).dtype.itemsize
            writer = TokenizedFile(
                str(tmp_path / "theirs"), path.name, tokenizer_name_or_path="tokenizer.json", save_final_metadata=True, token_size=size
            )
            for document in documents:
                writer.write(document.ids.tolist(), None)
            writer.close()
            for end in ("", ".index", ".metadata"):
                assert (tmp_path / "theirs" / f"{path.name}{end}").read_bytes() == path.with_name(f"{path.name}{end}").read_bytes()
