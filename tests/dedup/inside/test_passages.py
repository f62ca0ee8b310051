"""Compares repeated passages in the whole stage, Parquet to Parquet, with brute force."""

import random
from pathlib import Path

import pytest
from repeated_passages import repeats, without
from stage_runs import again

from corpusmill.dedup.inside import passages
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.runner import StageRun

OFF = {"exact": {"enabled": False}, "minhash": {"enabled": False}}


def corpus(seed: int, count: int) -> list[dict]:  # type: ignore[type-arg]
    """Makes documents of passages from one source and words of their own; some have a menu on top, some are copies."""
    draw = random.Random(seed)
    source = [f"w{draw.randrange(3000)}" for _ in range(1500)]
    rows = []
    for i in range(count):
        lines = ["Home About Contact Imprint Privacy Help Search Login Register Feed"] if draw.random() < 0.5 else []
        for _ in range(draw.randrange(4)):
            at, length = draw.randrange(1500), draw.randrange(40)
            lines.append(" ".join(source[at : at + length] + [f"own{draw.random()}" for _ in range(draw.randrange(5))]))
        rows.append({"text": "\n".join(lines), "url": f"http://h.org/{i}", "offset": i})
        if draw.random() < 0.1:
            rows.append({**rows[-1], "url": f"http://h.org/{i}/copy"})
    return rows


@pytest.mark.parametrize(("keep", "lines"), [("first", {"min_count": 5}), ("none", None)])
def test_passages_of_the_documents_that_stay(keep: str, lines: dict | None, dedup, monkeypatch) -> None:  # type: ignore[no-untyped-def, type-arg]
    rows = corpus(3, 120)
    shards = [rows[:30], [], rows[30:70], rows[70:]]
    before = dedup(shards, minhash={"enabled": False}, lines=lines)
    assert before.counts["exact"] > 3
    monkeypatch.setattr(passages, "plan_ranges", lambda *_: 4)
    result = dedup(shards, minhash={"enabled": False}, lines=lines, substrings={"tokens": 10, "keep": keep})
    cut = repeats([row["text"] for row in before.data], 10, keep)
    expected = [(row["id"], without(row["text"], gone)) for row, gone in zip(before.data, cut, strict=True)]
    assert sum(map(bool, cut)) > 20
    emptied = {id_ for (id_, text), gone in zip(expected, cut, strict=True) if gone and not text}
    assert [(row["id"], row["text"]) for row in result.data] == [pair for pair in expected if pair[0] not in emptied]
    report = {row["id"]: row for row in result.report if row["substring_spans"] is not None}
    assert set(report) == {id_ for id_, _ in expected}
    for (id_, text), gone, row in zip(expected, cut, before.data, strict=True):
        assert report[id_]["substring_spans"] == sum(place - 1 not in gone for place in gone)
        assert report[id_]["substring_chars_cut"] == len(row["text"]) - len(text)
        assert report[id_]["failed"] == (["only_repeated_substrings"] if id_ in emptied else [])
        assert report[id_]["chars_out"] == len(text)


def test_identical_documents(dedup) -> None:  # type: ignore[no-untyped-def]
    passage = " ".join(f"w{i}" for i in range(60))
    same = [{"text": passage, "url": str(i)} for i in range(25)]
    result = dedup([same[:10], same[10:]], **OFF, substrings={})
    assert result.kept == [passage]
    assert [row["failed"] for row in result.report] == [[], *[["only_repeated_substrings"]] * 24]
    assert dedup([same[:10], same[10:]], **OFF, substrings={"keep": "none"}).kept == []
    assert dedup([same[:10], same[10:]], substrings={"keep": "none"}).kept == [passage]  # copies of documents do not count as repeats


class Backwards(InlineEngine):
    """Performs the last task first, as several workers may."""

    def perform(self, job, pieces, listener):  # type: ignore[no-untyped-def]
        return super().perform(job, pieces[::-1], listener)


def test_the_order_of_the_tasks_decides_no_byte_and_a_lost_file_is_made_again(dedup, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    options = {"scope": "host", "min_share": 0.2, "min_count": 3}
    monkeypatch.setattr("corpusmill.dedup.inside.sections.RANGE_BYTES", 4000)
    rows = corpus(9, 90)
    first = dedup([rows[:25], rows[25:60], rows[60:]], lines=options, substrings={"tokens": 12}).run
    expected = digests(first)
    assert sum(path.startswith("lines/cut-") for path in expected) > 2
    first.run.remove_folder("dedup")
    other = again(first, Backwards())
    assert other.performed == len(other.plan) and digests(other) == expected
    lost = ["lines/cut-00001.bin", "substrings/windows-part-00002.bin", "substrings/repeated-00000.bin"]
    for path in lost:
        Path(other.storage.path(path)).unlink()
    last = again(other)
    assert last.performed == len(lost) and digests(last) == expected


def digests(run: StageRun) -> dict[str, str]:
    return {output.path: output.sha256 for row in run.manifest.rows() for output in row.outputs}
