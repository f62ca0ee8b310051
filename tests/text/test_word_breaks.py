"""Compares properties and words with uniseg 0.8.0."""

import unicodedata

from uniseg.db import word_break

from corpusmill.text.word_breaks import OTHER, PROPERTIES, PROPERTY, word_break_table


def test_properties_of_all_assigned_characters() -> None:
    names = {name.upper().replace("_", ""): value for name, value in PROPERTIES.items()}
    table = word_break_table() & PROPERTY
    for point in [*range(0xD800), *range(0xE000, 0x110000)]:
        if unicodedata.category(chr(point)) != "Cn":
            assert table[point] == names.get(word_break(chr(point)).upper().replace("_", ""), OTHER), hex(point)
