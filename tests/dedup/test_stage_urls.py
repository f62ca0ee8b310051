"""Tests the whole stage: captures of one address, and the counts of removals."""

import pyarrow as pa
import pytest

from corpusmill.dedup.stage import DedupStage
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.schemas import DOCUMENTS


def page(number: int) -> str:
    return " ".join([f"p{number}x{i}" for i in range(60)])


CAPTURES = [
    {"url": "http://Example.org:80/a#top", "text": page(1), "timestamp": "2024-01-01T00:00:00Z", "source": "old"},
    {"url": "http://example.org/a", "text": page(2), "timestamp": "2024-06-01T00:00:00Z", "source": "new"},
    {"url": "http://example.org/./a", "text": page(3), "timestamp": None, "source": "new"},
    {"url": "http://example.org/b", "text": page(4), "timestamp": "2020-01-01T00:00:00Z", "source": "old"},
]


def test_of_captures_of_one_address_the_newest_stays(dedup) -> None:  # type: ignore[no-untyped-def]
    result = dedup([CAPTURES[:1], CAPTURES[1:]], url={"enabled": True})
    assert result.kept == [page(2), page(4)]
    kept = result.data[0]["id"]
    for row, capture in zip(result.report, CAPTURES, strict=True):
        if not row["kept"]:
            assert (row["failed"], row["verified"], row["similarity"], row["kept_id"]) == (["url_duplicate"], "url", None, kept), capture
    assert [row["cluster_size"] for row in result.report] == [3, 3, 3, 1]
    assert result.counts["url"] == 2 and result.counts["exact"] == result.counts["near"] == 0
    assert result.sources == [
        {"source": "new", "documents": 2, "url": 1, "exact": 0, "near": 0, "share": 0.5, "alarm": False},
        {"source": "old", "documents": 2, "url": 1, "exact": 0, "near": 0, "share": 0.5, "alarm": False},
    ]


@pytest.mark.parametrize(("keep", "expected"), [("quality", 3), (["sources", "oldest"], 1)])
def test_another_policy_for_addresses_than_for_texts(keep, expected: int, dedup) -> None:  # type: ignore[no-untyped-def]
    rows = [{**row, "quality": float(i), "offset": i} for i, row in enumerate(CAPTURES)]
    schema = DOCUMENTS.append(pa.field("quality", pa.float64()))
    result = dedup([rows], schema, url={"enabled": True, "keep": keep}, sources=["ol*"])
    assert result.kept == [page(expected), page(4)]


def test_without_normalisation_only_equal_bytes_are_one_address(dedup) -> None:  # type: ignore[no-untyped-def]
    rows = [*CAPTURES, {**CAPTURES[3], "text": page(5), "timestamp": "2021-01-01T00:00:00Z"}]
    result = dedup([rows], url={"enabled": True, "normalisation": "none"})
    assert result.kept == [page(1), page(2), page(3), page(5)]


def test_a_capture_whose_newer_one_is_a_near_copy_goes_with_it(dedup) -> None:  # type: ignore[no-untyped-def]
    words = page(1).split()
    rows = [
        {"url": "u/1", "text": page(7), "timestamp": "2020-01-01"},  # an older capture with another text
        {"url": "u/1", "text": " ".join(words), "timestamp": "2024-01-01"},
        {"url": "u/2", "text": " ".join([*words, "more"]), "timestamp": "2022-01-01"},
        {"url": "u/3", "text": page(7), "timestamp": "2023-01-01"},  # the exact copy of a document removed for its URL stays
    ]
    result = dedup([rows], url={"enabled": True})
    by_url = {(row["url"], i): row for i, row in enumerate(result.report)}
    kept = by_url["u/2", 2]
    assert [row["kept"] for row in result.report] == [False, False, True, True]
    assert (by_url["u/1", 0]["verified"], by_url["u/1", 0]["kept_id"]) == ("url", kept["id"])
    assert (by_url["u/1", 1]["verified"], by_url["u/1", 1]["kept_id"]) == ("exact_jaccard", kept["id"])
    assert by_url["u/1", 1]["similarity"] == 56 / 57
    assert [row["cluster_size"] for row in result.report] == [3, 3, 3, 1]


def test_the_removal_is_counted_by_host(dedup) -> None:  # type: ignore[no-untyped-def]
    urls = [f"HTTP://User@News.test:8080/{i}" for i in range(25)] + [
        "https://[2001:DB8::1]:80/x",
        "https://[2001:db8::1]/y",
        None,
        "no-url",
    ]
    rows = [{"url": url, "text": "the same" if i < 25 else f"other {i % 2}", "offset": i} for i, url in enumerate(urls)]
    result = dedup([rows[:10], rows[10:]], by="host", keep="first")
    assert [(row["source"], row["documents"], row["exact"], row["alarm"]) for row in result.sources] == [
        ("[2001:db8::1]", 2, 0, False), ("news.test", 25, 24, True), (None, 2, 2, False),
    ]  # fmt: skip
    assert result.warnings == ["news.test: loses 96.0% of its 25 documents as duplicates"]


def test_the_removal_is_counted_by_a_column(dedup) -> None:  # type: ignore[no-untyped-def]
    schema = DOCUMENTS.append(pa.field("year", pa.int64()))
    rows = [
        {"text": text, "year": year, "offset": i} for i, (text, year) in enumerate([("x", 1), ("x", 1), ("y", 1), ("y", 2), ("z", None)])
    ]
    result = dedup([rows], schema, by="year", keep="first")
    assert [(row["source"], row["documents"], row["exact"]) for row in result.sources] == [("1", 3, 1), ("2", 1, 1), (None, 1, 0)]
    with pytest.raises(InputError, match=r"part-00000.parquet: has no column 'month', which dedup needs"):
        dedup([rows], schema, by="month")


def test_an_alarm_stops_by_default_and_names_the_worst_first(dedup, tmp_path) -> None:  # type: ignore[no-untyped-def]
    rows = [{"text": "bad", "url": str(i), "source": "bad"} for i in range(25)]
    rows += [{"text": "worse", "url": str(i), "source": "worse"} for i in range(100)]
    rows += [{"text": "few", "url": str(i), "source": "few"} for i in range(19)]
    rows += [{"text": f"fine {i // 2}", "url": str(i), "source": "fine"} for i in range(40)]
    stop = DedupStage.Config().alarm
    with pytest.raises(
        CorpusmillError, match=r"^dedup stops before removing anything: worse: loses 99\.0% of its 100.*1 more crawl file"
    ) as error:
        dedup([rows], alarm=stop)
    assert error.value.exit_code == 2  # a retry would not help
    (run,) = tmp_path.glob("run*")
    assert not (run / "dedup/data").exists() and not (run / "dedup/report").exists()
    result = dedup([rows])
    assert result.warnings == [f"{name}: loses {share} of its {n} documents as duplicates" for name, share, n in
                               (("worse", "99.0%", 100), ("bad", "96.0%", 25))]  # fmt: skip
