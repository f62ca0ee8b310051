"""Compares repeated lines in the whole stage, Parquet to Parquet, with plain Python."""

import random
from collections import Counter, defaultdict
from math import ceil
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from ccnet_form import ccnet_form

from corpusmill.dedup.config import LinesConfig
from corpusmill.dedup.inside.lines import host_keys
from corpusmill.pipeline.shards import read_table


def crawl(seed: int, count: int = 60) -> list[dict]:  # type: ignore[type-arg]
    """Makes pages of three hosts: lines of their own, of their host, and of all hosts; some whole pages are copies."""
    draw = random.Random(seed)
    rows: list[dict] = []  # type: ignore[type-arg]
    for i in range(count):
        host = draw.choice(["a.org", "b.org", "C.org:80"])
        lines = [f"own line {i} {draw.random()}" for _ in range(draw.randint(0, 3))]
        lines += draw.sample([f"{host} menu {k}" for k in "xyz"], draw.randint(0, 3))
        lines += draw.choices(["All rights reserved", "all RIGHTS reserved", "Page 1", "Page 2", "", "rare"], k=draw.randint(0, 4))
        draw.shuffle(lines)
        rows.append({"text": "\n".join(lines), "url": f"http://{host}/{i}", "source": f"crawl{i % 2}", "offset": i})
        if draw.random() < 0.2:
            rows.append({**rows[-1], "url": f"http://{host}/{i}/copy"})
    return rows


def host_of(row: dict) -> str:  # type: ignore[type-arg]
    return urlsplit(row["url"]).netloc.lower() if row["url"] else row["source"]


def slow(rows: list[dict], config: LinesConfig) -> list[str | None]:  # type: ignore[type-arg]
    """Returns the remaining documents without their repeated lines; None where no line remains."""
    scope = host_of if config.scope == "host" else lambda _: ""
    documents: dict[tuple[str, str], set[int]] = defaultdict(set)
    times: Counter[tuple[str, str]] = Counter()
    sizes = Counter(scope(row) for row in rows)
    for i, row in enumerate(rows):
        for line in filter(str.strip, row["text"].split("\n")):
            documents[scope(row), ccnet_form(line)].add(i)
            times[scope(row), ccnet_form(line)] += 1
    seen, out = set(), []
    for row in rows:
        kept = []
        for line in filter(str.strip, row["text"].split("\n")):
            unit = scope(row), ccnet_form(line)
            if config.keep == "first":
                repeated = times[unit] >= config.least
                stays = not repeated or unit not in seen
                seen.add(unit)
            else:
                stays = len(documents[unit]) < max(config.least, ceil(sizes[unit[0]] * config.min_share))
            kept += [line] if stays else []
        lines = [line for line in row["text"].split("\n") if line.strip()]
        out.append(None if lines and not kept else "\n".join(kept))
    return out


@pytest.mark.parametrize(
    "options",
    [
        {"min_count": 5},
        {"keep": "first"},
        {"scope": "host", "min_count": 2, "min_share": 0.3},
        {"scope": "host", "keep": "first", "min_count": 3},
    ],
)
def test_lines_of_the_documents_that_stay(options: dict, dedup, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def, type-arg]
    rows = crawl(1)
    plain = dedup([rows[:20], [], rows[20:45], rows[45:]], minhash={"enabled": False})
    assert plain.counts["exact"] > 3
    monkeypatch.setattr("corpusmill.dedup.inside.lines.plan_ranges", lambda *_: 3)
    result = dedup([rows[:20], [], rows[20:45], rows[45:]], minhash={"enabled": False}, lines=options)
    expected = slow(plain.data, LinesConfig(**options))
    found = {row["id"]: row["text"] for row in result.data}
    blankless = [None if row["id"] not in found else "\n".join(filter(str.strip, found[row["id"]].split("\n"))) for row in plain.data]
    assert blankless == expected
    report = {row["id"]: row for row in result.report if row["lines_in"] is not None}
    for row in plain.data:
        mine = report[row["id"]]
        assert mine["lines_in"] == len(list(filter(str.strip, row["text"].split("\n"))))
        after = found.get(row["id"])
        assert mine["kept"] == (after is not None) and mine["failed"] == ([] if mine["kept"] else ["only_repeated_lines"])
        assert mine["line_chars_cut"] == len(row["text"]) - len(after or "")
    assert len(report) == len(plain.data)


def test_the_table_of_what_was_cut(dedup) -> None:  # type: ignore[no-untyped-def]
    shards = [
        [
            {"text": f"Menu one\n\nown {'abcdefgh'[i]} {'xyz'[n]}\nCopyright {2000 + i}", "url": f"http://h.org/{n}/{i}", "source": f"s{n}"}
            for i in range(8)
        ]
        for n in range(3)
    ]
    shards[2][0]["text"] = "nothing else in common"
    result = dedup(shards, lines={"min_count": 20, "top": 5})
    top = read_table(result.run.storage, "lines/top.parquet").to_pylist()
    first = result.report[0]["id"]
    line = {"documents": 23, "times": 23, "sources": 3, "example_id": first, "example_url": "http://h.org/0/0"}
    assert sorted(top, key=lambda row: row["text"]) == [{"text": "Copyright 2000", **line}, {"text": "Menu one", **line}]
    assert result.kept[:2] == ["own a x", "own b x"] and "nothing else in common" in result.kept
    summary = result.run.stage.summary(result.run)
    assert summary["repeated lines"].startswith("2 different")
    assert "“Menu one” in 23 documents" in summary["most frequent of them"]


def test_documents_that_lose_too_much(dedup) -> None:  # type: ignore[no-untyped-def]
    texts = ["the same line\nand a line of my own", "the same line\nshort", "the same line"]
    options = {"min_count": 3, "max_cut": 0.5}
    left = dedup([texts], lines=options)
    assert left.kept == ["and a line of my own", *texts[1:]]
    assert [row["lines_cut"] for row in left.report] == [1, 0, 0]
    dropped = dedup([texts], lines={**options, "beyond": "drop"})
    assert dropped.kept == ["and a line of my own"]
    assert [row["failed"] for row in dropped.report] == [[], ["mostly_repeated_lines"], ["only_repeated_lines"]]


def test_identical_documents(dedup) -> None:  # type: ignore[no-untyped-def]
    same = [{"text": "a\nb", "url": str(i)} for i in range(30)]
    assert dedup([same[:10], same[10:]], lines={}).kept == ["a\nb"]  # one document remains, whose lines no other has
    exact = {"enabled": False}
    assert dedup([same[:10], same[10:]], exact=exact, minhash=exact, lines={"keep": "first"}).kept == ["a\nb"]
    assert dedup([same[:10], same[10:]], exact=exact, minhash=exact, lines={}).kept == []


def test_a_paragraph_is_a_unit_of_its_own(dedup) -> None:  # type: ignore[no-untyped-def]
    texts = ["my text\nof two lines\n\nboiler\nplate", "boiler\nplate\n\n\nother\n\nplate", "BOILER\nPLATE\n\nthird"]
    assert dedup([texts], lines={"unit": "paragraph", "min_count": 3}).kept == ["my text\nof two lines", "other\n\nplate", "third"]


def test_a_document_of_many_lines(dedup) -> None:  # type: ignore[no-untyped-def]
    """Time that grew with the square of the lines would not end."""
    text = "".join(f"line {i:x} of many\n" if i % 3 else "the same line\n" for i in range(90_000))
    result = dedup([[text, "the same line\nshort"]], minhash={"enabled": False}, lines={"keep": "first", "normalisation": "none"})
    assert [row["lines_cut"] for row in result.report] == [29_999, 1] and result.kept[1] == "short"


def test_documents_of_one_host_have_one_key() -> None:
    urls = [
        "http://a.org/x", "HTTPS://A.org", "http://user:word@a.org?q", "http://a.org#top",  # one host
        "http://a.org:80/", "http://b.org/http://a.org/", "ftp://[::1]/x", "http://[::1]/y", None, None, "no url", None,
    ]  # fmt: skip
    sources = ["s"] * 9 + ["s", "s", "other"]
    keys = host_keys(pa.table({"url": pa.chunked_array([urls[:5], urls[5:]], pa.string()), "source": sources})).tolist()
    groups = [[0, 1, 2, 3], [4], [5], [6, 7], [8, 9, 10], [11]]
    assert [{keys[i] for i in group} for group in groups] == [{keys[group[0]]} for group in groups]
    assert len(set(keys)) == len(groups)
