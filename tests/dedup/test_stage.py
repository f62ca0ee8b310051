"""The whole stage, Parquet to Parquet."""

import re
from pathlib import Path

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
