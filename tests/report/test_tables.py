from hypothesis import given
from hypothesis import strategies as st
from printing import printed
from rich.text import Text

from corpusmill.report.tables import show, table


@given(st.lists(st.tuples(st.text("abc_ ", max_size=40), *[st.integers(0, 10**12)] * 3), min_size=1, max_size=3), st.integers(20, 120))
def test_every_number_is_shown_whole_at_any_width(rows: list[tuple[str, int, int, int]], width: int) -> None:
    made = table("", "name", ">one\nheading", ">two", ">three")
    for name, *numbers in rows:
        made.add_row(Text(name), *(f"{number:,}" for number in numbers))
    text = printed(show, made, width=width)
    assert all(len(line) <= width for line in text.splitlines())
    words = text.split()
    assert all(f"{number:,}" in words for _, *numbers in rows for number in numbers)
