"""Compares a window on a stream with the bytes themselves."""

import io

from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.formats import streams as module
from corpusmill.pipeline.formats.streams import RangeFile, Window

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["peek", "ahead", "take", "skip", "skip_any", "line", "seek", "back"]), st.integers(0, 40)), max_size=20
)


@given(st.text("ab\n", max_size=120).map(str.encode), OPERATIONS, st.booleans(), st.integers(1, 9))
def test_a_window_gives_what_lies_at_its_position(content: bytes, operations: list[tuple[str, int]], seekable: bool, chunk: int) -> None:
    before, module.CHUNK = module.CHUNK, chunk
    try:
        window = Window(RangeFile(io.BytesIO(b"xx" + content + b"yy"), 2, 2 + len(content)) if seekable else io.BytesIO(content), 1000)
        at = 0
        for name, number in operations:
            if name == "peek":
                assert window.peek(number) == content[at : at + number]
            elif name == "ahead":
                assert window.peek(5, number) == content[at + number : at + number + 5]
            elif name == "take":
                assert window.take(number) == content[at : at + number]
                at = min(len(content), at + number)
            elif name == "skip":
                assert window.skip(number) == min(number, len(content) - at)
                at = min(len(content), at + number)
            elif name == "skip_any":
                window.skip_any(b"\n")
                at = len(content) - len(content[at:].lstrip(b"\n"))
            elif name == "line":
                line = window.take_line()
                assert content[at:].startswith(line) and b"\n" not in line[:-1] and (line or at == len(content))
                at += len(line)
            elif name == "seek":
                place = content.find(b"\nab", at, at + number + 2) if number else content.find(b"\nab", at)
                assert window.seek_pattern(b"\nab", 1000 + at + number if number else None) == (place >= 0)
                at = place if place >= 0 else min(at + number, len(content)) if number else len(content)
            else:  # ahead and back again, as after a record header that turns out to be none
                with window.hold():
                    start, _ = window.position, window.skip(number)
                    window.go(start)
            assert window.position == 1000 + at
            assert window.end == (1000 + len(content) if seekable else None)
        if seekable:
            window.go(1000)
            assert window.take(200) == content
    finally:
        module.CHUNK = before
