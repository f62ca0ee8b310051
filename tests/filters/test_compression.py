import math
import zlib
from collections.abc import Callable

import lz4.block
import pytest
import zstandard

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


@pytest.mark.parametrize("codec", REFERENCES)
def test_what_was_compressed_can_be_read(codec: str) -> None:
    from corpusmill.filters.ratios import compressor

    text = b"a text, a text, a text" * 20
    packed = compressor(codec)(memoryview(text))
    if codec == "zlib":
        assert zlib.decompress(packed) == text
    elif codec == "zstd":
        assert zstandard.ZstdDecompressor().decompress(packed, max_output_size=len(text)) == text
    else:
        assert lz4.block.decompress(packed, uncompressed_size=len(text)) == text


def test_repetition_compresses(measure_step: Callable) -> None:
    columns, _ = measure_step("compression", {}, ["buy now! " * 500, "".join(map(chr, range(0x4E00, 0x5E00)))])
    repetitive, varied = columns["compression_ratio"]
    assert repetitive < 0.1 < varied
