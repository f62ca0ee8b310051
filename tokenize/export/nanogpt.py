"""nanoGPT: `train.bin` and `val.bin`, one row of uint16, and `meta.pkl`, which tells its programs the vocabulary."""

import pickle
from pathlib import Path
from typing import ClassVar

from tokenizers import Tokenizer

from corpusmill.pipeline.token_bytes import to_bytes
from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source

FILES = {"train": "train.bin", "validation": "val.bin"}


class NanoGPT(Format):
    """`train.py` maps the files as uint16, whatever the vocabulary, so tokens of 32 bits have no place in this format."""

    largest_vocabulary: ClassVar[int | None] = (1 << 16) - 1  # what token shards hold in uint16

    def write(self, source: Source, folder: Path) -> None:
        with open(folder / FILES[source.split], "wb") as file:
            for stretch in source.all_stretches():
                file.write(stretch.tokens.data)

    def finish(self, folder: Path, splits: list[str], tokenizer_json: bytes) -> None:
        (folder / "meta.pkl").write_bytes(pickle.dumps(describe(Tokenizer.from_buffer(tokenizer_json)), protocol=2))


def describe(tokenizer: Tokenizer) -> dict[str, object]:
    """What nanoGPT reads from `meta.pkl`: `vocab_size` in train.py, `itos` and `stoi` in sample.py.

    sample.py encodes a prompt character by character, so `stoi` holds the tokens that are one character; a character
    that lies in several tokens is shown as U+FFFD.
    """
    special = tokenizer.get_added_tokens_decoder()
    tokens = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    itos = {number: token if number in special else to_bytes(token).decode("utf-8", "replace") for number, token in tokens}
    stoi = {text: number for number, text in itos.items() if len(text) == 1 and text != "\ufffd"}
    return {"vocab_size": tokens[-1][0] + 1, "itos": itos, "stoi": stoi}
