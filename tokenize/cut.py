"""A split by place: what comes first in the order of the files is for training, the last share of all characters for validation.

The border may lie in a document. That one is cut in two: two rows of its part, which are encoded each by itself.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Columns that `cut_table` adds: the UTF-8 bytes of the document's text before the row's, and whether it is for validation.
TEXT_BEGIN, HELD_OUT = "text_begin", "held_out"


def training_characters(characters: Sequence[int], tail: float) -> list[int]:
    """How many characters of each shard of documents are for training: all together `total * (1 - tail)`, rounded down.

    Of two characters or more, at least one is for training and one for validation.
    """
    total = sum(characters)
    border = max(total - max(math.ceil(total * Fraction(str(tail))), 1), min(total, 1))  # in decimals, as the share was written
    found = []
    for count in characters:
        found.append(min(count, border))
        border -= found[-1]
    return found


def cut_table(table: pa.Table, characters: int) -> pa.Table:
    """The documents of a table with the columns TEXT_BEGIN and HELD_OUT: what lies behind the first `characters` characters is held out.

    The document in which the border lies has two rows, whose texts together are its text.
    """
    texts = table["text"]
    ends = np.cumsum(pc.utf8_length(texts).to_numpy().astype(np.int64))
    row = int(np.searchsorted(ends, characters, "right"))  # the first with a character behind the border
    inside = characters - (int(ends[row - 1]) if row else 0)
    begins = np.zeros(table.num_rows, np.int64)
    if row < table.num_rows and inside > 0:
        text = texts[row].as_py()
        parts = pa.array([text[:inside], text[inside:]], texts.type)
        document = table.slice(row, 1)
        both = pa.concat_tables([document, document]).set_column(table.column_names.index("text"), table.schema.field("text"), parts)
        table = pa.concat_tables([table.slice(0, row), both, table.slice(row + 1)])
        row += 1
        begins = np.insert(begins, row, len(text[:inside].encode()))
    return table.append_column(TEXT_BEGIN, pa.array(begins)).append_column(HELD_OUT, pa.array(np.arange(table.num_rows) >= row))
