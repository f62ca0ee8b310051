import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.control import strip_control_codes

from corpusmill.pipeline.safe import safe_line, safe_text

HARMFUL = st.sampled_from(
    ["\x1b[2J", "\x1b]0;t\x07", "\x9b31m", "\u202e", "\x1bP", "\r", "\x08", "\x00", "\u2066", "\x1b", "\u2028", "a", " ", "\n"]
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone", "gone"),
        ("\x1bP1$r0m\x1b\\after", "after"),
        ("abc\u202edef\u202c", "abcdef"),
        ("one\rtwo\x08\x00", "onetwo"),
        ("keep\ttab\nand line", "keep\ttab\nand line"),
        ("naïve 日本語 العربية 👩‍🔬", "naïve 日本語 العربية 👩‍🔬"),
        ("\ud800lone", "lone"),
    ],
)
def test_what_a_terminal_obeys_is_gone_and_text_stays(raw: str, clean: str) -> None:
    assert safe_text(raw) == clean


@given(st.lists(HARMFUL | st.text(), max_size=20).map("".join))
def test_nothing_harmful_is_left(text: str) -> None:
    clean = safe_text(text)
    assert all(unicodedata.category(c) != "Cc" or c in "\n\t" for c in clean)
    assert not any(unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"} for c in clean)
    assert strip_control_codes(clean) == clean  # rich's own list of codes that move the cursor
    assert safe_text(clean) == clean
    assert "\n" not in safe_line(text)
    clean.encode("utf-8")


@given(st.text(min_size=50), st.integers(2, 40))
def test_a_limit_is_kept_and_shown(text: str, limit: int) -> None:
    clean = safe_text(text, limit)
    assert len(clean) <= limit
    assert safe_line("word " * 50, limit).endswith("…")
