"""Tests ratios of compressed bytes and of tokens."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pytest
import zstandard
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from corpusmill.pipeline.errors import InputError

# ---- compression

REFERENCES = {
    "zlib": lambda text: zlib.compress(text, 6),
    "zstd": lambda text: zstandard.ZstdCompressor(level=3, write_content_size=False).compress(text),
    "lz4": lambda text: lz4.block.compress(text, store_size=False),
}


@pytest.mark.parametrize("codec", REFERENCES)
def test_sizes_are_those_of_each_text_by_itself(codec: str, texts: list[str], measure_step: Callable) -> None:
    columns, _ = measure_step("compression", {"codec": codec}, texts)
    for text, found in zip(texts, columns["compression_ratio"], strict=True):
        data = text.encode()
        assert (found == len(REFERENCES[codec](data)) / len(data)) if data else math.isnan(found)


# ---- token ratio


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(["the cat and the hat sat on the mat"] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=letters))
    trained.add_special_tokens(["<s>"])
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", trained.token_to_id("<s>"))])
    trained.enable_truncation(8)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    trained.save(str(path))
    return str(path)


def test_tokens_of_each_text(tokenizer: str, texts: list[str], measure_step: Callable) -> None:
    texts = [text[:2000] for text in texts]
    columns, _ = measure_step("token_ratio", {"tokenizer": tokenizer}, texts)
    reference = Tokenizer.from_file(tokenizer)
    reference.no_truncation()  # a tokenizer's own limit does not count, nor do its special tokens
    for text, tokens, ratio in zip(texts, columns["tokens"], columns["token_char_ratio"], strict=True):
        assert tokens == len(reference.encode(text, add_special_tokens=False).ids)
        assert ratio == tokens / len(text) if text else math.isnan(ratio)


def test_no_tokenizer(measure_step: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.json: not a tokenizer\.json that can be read"):
        measure_step("token_ratio", {"tokenizer": str(tmp_path / "nothing.json")}, ["a"])
