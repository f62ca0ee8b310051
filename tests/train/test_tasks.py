"""Tests tasks from documents: deterministic, true to their source, and limited in number."""

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train import tasks

LONG = "The mill stands at the river. " * 6
STONES = "Stones turn and grain becomes flour. " * 5
PAGE = f"{LONG}\n\nHow it grinds\n\n{STONES}\n\na | b | c\n\n{'Water drives the wheel day and night. ' * 6}"


def source(text=PAGE, title="The old mill", identifier="d1") -> tasks.SourceDocument:
    return tasks.SourceDocument(identifier, "https://mill.test/", title, text)


def table(count: int) -> pa.Table:
    rows = [{"id": f"d{n}", "url": None, "title": f"Mill {n}", "text": PAGE.replace("grain", f"grain {n}")} for n in range(count)]
    return pa.Table.from_pylist(rows)


def test_heading_to_the_text_under_it():
    (task,) = tasks.heading_tasks(source(), 1000)
    assert '"How it grinds"' in task.prompt and task.answer.startswith("Stones turn")


def test_continuations_join_to_the_text():
    found = tasks.continuation_tasks(source(), 1000)
    assert len(found) == 3
    for task in found:
        assert f"{task.prompt.split(chr(10), 2)[2]} {task.answer}" in PAGE


@pytest.mark.parametrize("text", ["", "short", "1 2 3 4 | " * 40, "\n\n\n"])
def test_a_document_without_prose_gives_nothing(text):
    assert tasks.instructions(source(text), 200) == []


def test_shards_and_their_order_play_no_part():
    whole = table(50)
    shuffled = whole.take(random.Random(1).sample(range(50), 50))
    parts = [shuffled.slice(0, 13), shuffled.slice(13, 30), shuffled.slice(43)]

    def build(given_source):
        return tasks.instructions(given_source, 200)

    expected = tasks.choose([whole], "salt", 30, 2, build)
    assert tasks.choose(parts, "salt", 30, 2, build) == expected
    assert len(expected) == 30
    assert max(sum(t.source.id == task.source.id for t in expected) for task in expected) <= 2
    assert tasks.choose([whole], "salt", 10, 2, build) == expected[:10]
    assert tasks.choose([whole], "other", 30, 2, build) != expected


@given(st.text(max_size=300), st.integers(1, 120))
def test_cut_is_a_prefix_within_the_limit(text, limit):
    found = tasks.cut(text, limit)
    assert text.startswith(found) and len(found) <= limit
    assert len(found) >= min(len(text.rstrip()), limit // 2) or not text[: len(found) + 1].strip()
