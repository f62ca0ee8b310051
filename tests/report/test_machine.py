import csv
import io
import json
import math
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.safe import safe_text
from corpusmill.report.machine import as_json, print_csv

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("=+-@\t\r\n\"',;|\x1b\x9b\u202e"), max_size=12)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(TEXTS, max_size=3)


NESTED = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(TEXTS, VALUES, max_size=3)


@given(st.dictionaries(TEXTS, NESTED, max_size=4))
def test_json_is_strict_ascii_and_loses_nothing_but_what_it_can_not_say(value: dict[str, object]) -> None:
    text = as_json(value)
    assert text.isascii() and text.isprintable()

    def refuse(name: str) -> float:
        raise AssertionError(name)  # NaN, Infinity: no JSON

    found = json.loads(text, parse_constant=refuse)
    assert found.keys() == value.keys()
    for key, item in value.items():
        if isinstance(item, float) and not math.isfinite(item):
            assert found[key] == (None if math.isnan(item) else str(item))
        elif not isinstance(item, list | dict):
            assert found[key] == item


@given(st.lists(st.tuples(TEXTS, VALUES), max_size=5))
def test_csv_reads_back_and_no_cell_is_a_formula(rows: list[tuple[str, object]]) -> None:
    out = io.StringIO(newline="")
    print_csv(({"=text": text, "value": value} for text, value in rows), ["=text", "value"], out)
    written = out.getvalue()
    assert all(unicodedata.category(c) != "Cc" or c in "\r\n\t" for c in written)
    found = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert found[0] == ["'=text", "value"] and len(found) == len(rows) + 1
    for (text, value), cells in zip(rows, found[1:], strict=True):
        assert cells[0].removeprefix("'") == safe_text(text).removeprefix("'")
        assert cells[0].lstrip()[:1] not in {*"=+-@|%"}
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            assert float(cells[1]) == value  # -1 is a number, no formula
