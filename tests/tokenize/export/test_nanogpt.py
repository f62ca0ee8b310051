"""Tests nanoGPT's files, read as its train.py does: memory maps of uint16 and slices of them."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from token_sets import write_token_set
from tokenizers import Tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.tokenize.export.export import export

FILES = {"train": "train.bin", "validation": "val.bin"}


def test_batches_of_nanogpts_loader_are_windows_of_the_shards(real_run, exported):
    folder, block = exported(real_run, "nanogpt"), 256
    torch.manual_seed(1337)
    for split, file in FILES.items():
        data, shards = np.memmap(folder / file, dtype=np.uint16, mode="r"), real_run.shards(split)
        assert np.array_equal(data, real_run.stream(split))
        for start in torch.randint(len(data) - block, (64,)).tolist():
            x, y = (torch.from_numpy(data[at : at + block].astype(np.int64)) for at in (start, start + 1))
            assert x.tolist() == shards.window(start, block).tolist()
            assert torch.equal(y[:-1], x[1:]) and int(y[-1]) == int(shards.window(start + block, 1)[0])


def test_meta_tells_the_vocabulary_and_its_texts(real_run, exported):
    folder = exported(real_run, "nanogpt")
    meta = pickle.loads((folder / "meta.pkl").read_bytes())  # noqa: S301 as train.py does
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert meta["vocab_size"] == real_run.vocabulary_size() == tokenizer.get_vocab_size() == len(meta["itos"])
    assert all(text == tokenizer.decode([number], skip_special_tokens=False) for number, text in meta["itos"].items())
    assert meta["itos"][0] == "<|endoftext|>"
    prompt = "The river runs"
    ids = [meta["stoi"][character] for character in prompt]
    assert "".join(meta["itos"][number] for number in ids) == prompt == tokenizer.decode(ids)


@pytest.mark.parametrize("size", [65_535, 65_536])
def test_the_largest_vocabulary_of_16_bits(real_run, tmp_path, size):
    tokenizer = Path(real_run.folder, "tokenizer", "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_bytes(tokenizer)
    ids = np.append(np.arange(size - 1, 0, -1), 0)
    write_token_set(tmp_path / "tokens" / "train", [[ids]], size, hashlib.sha256(tokenizer).hexdigest())
    if size > 65_535:
        with pytest.raises(InputError, match="a vocabulary of 65,536 does not fit the format nanogpt"):
            export(str(tmp_path), "nanogpt", str(tmp_path / "out"), ("train",))
    else:
        export(str(tmp_path), "nanogpt", str(tmp_path / "out"), ("train",))
        assert np.array_equal(np.memmap(tmp_path / "out" / "train.bin", dtype=np.uint16, mode="r"), ids)
