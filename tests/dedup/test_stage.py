"""Tests the whole stage, Parquet to Parquet."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from dedup_runs import words

from corpusmill.pipeline.schemas import DOCUMENTS

PAIRS = {
    ("file01", "file75"), ("file02", "file76"), ("file03", "file87"), ("file09", "file64"), ("file14", "file88"),
    ("file18", "file99"), ("file23", "file51"), ("file25", "file40"), ("file32", "file52"), ("file34", "file63"),
}  # fmt: skip


def shingles(text: str, n: int) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def exact_jaccard(a: str, b: str, n: int = 5) -> float:
    x, y = shingles(a, n), shingles(b, n)
    return len(x & y) / len(x | y)


def test_the_100_texts_have_exactly_their_10_pairs(shared_data: Path, dedup) -> None:  # type: ignore[no-untyped-def]
    files = sorted((shared_data / "dedup" / "info4300_100docs").glob("*.txt"))
    rows = [{"text": file.read_text(), "url": file.stem} for file in files]
    result = dedup([rows[:30], rows[30:31], rows[31:]], minhash={"ngram": 3, "bands": 20, "rows": 5})
    names = {row["id"]: row["url"] for row in result.report}
    pairs = {tuple(sorted((row["url"], names[row["kept_id"]]))): row for row in result.report if not row["kept"]}
    assert set(pairs) == PAIRS
    for (a, b), row in pairs.items():
        texts = [(shared_data / "dedup" / "info4300_100docs" / f"{name}.txt").read_text() for name in (a, b)]
        assert row["similarity"] == exact_jaccard(*texts, 3)
        assert row["failed"] == ["near_duplicate"] and row["verified"] == "exact_jaccard" and row["cluster_size"] == 2
    assert len(result.kept) == 90


def test_pages_of_one_template_with_different_bodies_stay(dedup) -> None:  # type: ignore[no-untyped-def]
    template = words(90, 0)
    pages = [" ".join([*template[:45], *words(30, seed), *template[45:]]) for seed in range(1, 301)]
    result = dedup([pages], minhash={"bands": 30, "rows": 3})
    assert result.kept == pages
    assert result.counts["clusters"] == 0


def test_windows_along_one_text_do_not_chain(dedup) -> None:  # type: ignore[no-untyped-def]
    text = words(4000, 0)
    far = [" ".join(text[i * 20 : i * 20 + 120]) for i in range(190)]  # neighbours: Jaccard .706
    assert dedup([far], minhash={"bands": 30, "rows": 4}).kept == far
    near = [" ".join(text[i * 10 : i * 10 + 120]) for i in range(190)]  # neighbours: Jaccard .84, the next .706
    result = dedup([near], minhash={"bands": 30, "rows": 4})
    by_id = {row["id"]: row["text"] for row in result.data}
    removed = [row for row in result.report if not row["kept"]]
    assert len(result.kept) >= 190 / 3 and len(removed) > 40
    lookup = {row["id"]: text for row, text in zip(result.report, near, strict=True)}
    for row in removed:
        assert row["similarity"] == exact_jaccard(lookup[row["id"]], by_id[row["kept_id"]]) >= 0.75


def test_all_identical_leaves_one(dedup) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(words(50, 1))
    copies = [{"text": text.upper() if i % 2 else text, "url": f"http://example.org/{i}"} for i in range(60)]
    result = dedup([copies[:20], copies[20:]], alarm_documents=10)
    assert len(result.kept) == 1
    assert result.data[0]["cluster_size"] == 60 and result.data[0]["id"] == min(row["id"] for row in result.report)
    assert {tuple(row["failed"]) for row in result.report if not row["kept"]} == {("exact_duplicate",)}
    assert result.counts["exact"] == 59 and result.counts["largest_cluster"] == 60
    assert result.warnings == ["crawl.warc.gz: loses 98.3% of its 60 documents as duplicates"]
    removed = {"url": 0, "exact": 59, "near": 0}
    assert result.sources == [{"source": "crawl.warc.gz", "documents": 60, **removed, "share": 59 / 60, "alarm": True}]
    without = dedup([copies[:20], copies[20:]], exact={"enabled": False})
    assert without.kept == result.kept and without.counts["near"] == 59


def test_short_documents_are_never_merged_for_being_short(dedup) -> None:  # type: ignore[no-untyped-def]
    texts = ["a", "b", "C++", "C#", "no", "No!", "one two three", "one two four", "😀", "🙂", " ".join("abcdefghi"), " ".join("abcdefghj")]
    assert dedup([texts]).kept == texts
    assert dedup([[*texts, {"text": "NO", "url": "other"}]]).counts["exact"] == 1


def test_two_rows_with_one_id_leave_one(dedup) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(words(50, 1))
    rows = [{"text": text, "url": "u", "source": source, "offset": offset} for source, offset in (("b", 1), ("a", 7), ("a", 5), ("a", 5))]
    result = dedup([rows[:2], rows[2:]])
    assert len({row["id"] for row in result.report}) == 1
    assert [(row["source"], row["offset"]) for row in result.data] == [("a", 5)]
    assert [row["kept"] for row in result.report] == [False, False, True, False]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("longest", "c"), ("quality", "b"), ("newest", "a"), (["sources", "-chars"], "b"), ("(source == '1') * offset", "c")],
)
def test_the_policy_says_which_copy_stays(keep, expected: str, dedup) -> None:  # type: ignore[no-untyped-def]
    text = words(80, 1)
    rows = [
        {"url": "a", "text": " ".join(text), "quality": None, "timestamp": "2024-03-01T00:00:00Z", "source": "2", "offset": 0},
        {"url": "b", "text": " ".join([*text, "x"]), "quality": 0.5, "timestamp": None, "source": "1", "offset": 9},
        {"url": "c", "text": " ".join([*text, "yyyy"]), "quality": 0.25, "timestamp": "2024-01-01T00:00:00Z", "source": "1", "offset": 10},
    ]
    schema = DOCUMENTS.append(pa.field("quality", pa.float64()))
    result = dedup([rows], schema, keep=keep, sources=["1"])
    assert [row["url"] for row in result.data] == [expected]
    assert "quality" in result.data[0] and result.data[0]["cluster_size"] == 3


def test_copies_of_a_near_copy_go_with_it(dedup) -> None:  # type: ignore[no-untyped-def]
    text = words(80, 1)
    short = " ".join(text)
    rows = [{"text": short, "url": "1"}, {"text": short, "url": "2"}, {"text": " ".join([*text, "more"]), "url": "3"}]
    result = dedup([rows])
    assert [row["url"] for row in result.data] == ["3"]
    removed = [(row["failed"], row["similarity"], row["kept_id"]) for row in result.report if not row["kept"]]
    assert removed == [(["near_duplicate"], 76 / 77, result.data[0]["id"])] * 2
