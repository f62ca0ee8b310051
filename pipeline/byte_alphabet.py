"""The 256 characters that stand for bytes in `tokenizer.json`, as GPT-2 chose them, and the ranks that tiktoken wants."""

import base64
from collections.abc import Mapping
from functools import cache


@cache
def byte_characters() -> list[str]:
    """The character of each byte: itself where it is visible Latin-1, else the next free one from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in visible)
    points = {byte: byte for byte in visible} | {byte: 0x100 + place for place, byte in enumerate(hidden)}
    return [chr(points[byte]) for byte in range(256)]


@cache
def _character_table() -> dict[int, int]:
    """For `str.translate`: from byte (as a Latin-1 character) to its character."""
    return {byte: ord(character) for byte, character in enumerate(byte_characters())}


@cache
def _byte_table() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def to_characters(text: str) -> str:
    """Text in the byte alphabet: one character for each UTF-8 byte."""
    return text.encode().decode("latin-1").translate(_character_table())


def to_bytes(token: str) -> bytes:
    """The bytes of a token in the byte alphabet. Raises KeyError for any other character."""
    table = _byte_table()
    return bytes([table[character] for character in token])


def tiktoken_file(ranks: Mapping[bytes, int]) -> bytes:
    """tiktoken's file format: base64 of the token and its rank, a line each, by rank."""
    lines = (b"%b %d\n" % (base64.b64encode(token), rank) for token, rank in sorted(ranks.items(), key=lambda item: item[1]))
    return b"".join(lines)
