"""Tests limits of the whole stage: full clusters, containment, estimates, and tasks that are too large."""

import random
from itertools import pairwise, permutations

import pytest
from dedup_runs import words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.dedup import candidates


def shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    all_words = text.split()
    return {tuple(all_words[i : i + n]) for i in range(len(all_words) - n + 1)}


def family(size: int, length: int = 80) -> list[dict]:  # type: ignore[type-arg]
    """Makes near copies of one text, the longest first."""
    text = words(length, 1)
    return [{"text": " ".join([*text, *(f"m{i}" for i in range(size - step))]), "url": f"u/{step}"} for step in range(size)]


def test_what_a_full_cluster_has_no_room_for_stays_and_is_reported(dedup) -> None:  # type: ignore[no-untyped-def]
    rows = family(6)
    copies = [{"text": rows[step]["text"].upper(), "url": f"copy/{step}"} for step in (1, 4, 4, 5)]
    copies[2]["url"] = "copy/4b"
    result = dedup([[*rows, *copies[:2]], copies[2:]], max_cluster=3, keep=["longest", "oldest", "-offset"])
    report = {row["url"]: row for row in result.report}
    head = report["u/0"]["id"]
    assert [report[f"u/{step}"]["kept_id"] == head for step in range(4)] == [True] * 4
    assert not report["copy/1"]["kept"] and report["copy/1"]["kept_id"] == head and report["copy/1"]["verified"] == "exact_jaccard"
    for step, size in ((4, 3), (5, 2)):
        group = [report[url] for url in report if url.startswith((f"u/{step}", f"copy/{step}"))]
        (kept,) = [row for row in group if row["kept"]]
        assert len(group) == size and kept["full_cluster"] == head and kept["cluster_size"] == size
        text = rows[step]["text"]
        assert kept["similarity"] == len(shingles(text)) / len(shingles(text) | shingles(rows[0]["text"])) >= 0.75
        for row in group:
            if not row["kept"]:
                assert (row["failed"], row["kept_id"], row["full_cluster"]) == (["exact_duplicate"], kept["id"], None)
    assert {row["url"].split("/")[1][0]: row["cluster_id"] for row in result.data} == {"0": head, "4": head, "5": head}
    assert result.counts["full_clusters"] == 1 and result.counts["left_by_full_clusters"] == 2
    assert result.warnings == [f"the cluster of {head} is full (max_cluster 3): 2 more documents like it stay"]


def test_under_containment_a_part_goes_with_its_whole(dedup) -> None:  # type: ignore[no-untyped-def]
    whole = words(120, 1)
    part, half = whole[10:90], [*whole[:50], *words(50, 2)]
    rows = [" ".join(text) for text in (part, whole, half)]
    config = {"minhash": {"bands": 40, "rows": 2}}
    assert dedup([rows], **config).kept == rows
    result = dedup([rows], similarity="containment", **config)
    assert result.kept == rows[1:]
    row = result.report[0]
    assert row["verified"] == "containment" and row["similarity"] == 1.0
    result = dedup([rows], similarity="containment", threshold=0.4, **config)
    assert result.kept == rows[1:2]
    assert result.report[2]["similarity"] == len(shingles(rows[2]) & shingles(rows[1])) / len(shingles(rows[2]))


def captures_and_copies() -> list[dict]:  # type: ignore[type-arg]
    """Makes 80 documents: near copies in chains, exact copies, and captures of one address across them."""
    draw = random.Random(8)
    rows = []
    for number in range(8):
        text = words(60, number)
        for step in range(9):
            row = {"text": " ".join(text), "url": f"http://h/{draw.randrange(150)}", "source": f"s{step % 3}", "offset": number}
            rows.append(row | {"timestamp": f"2024-01-{draw.randrange(1, 20):02d}"})
            if step not in (3, 6):
                text = [*text]
                text[draw.randrange(60)] = f"new{draw.randrange(10**6)}"
    return [*rows, {"text": "short", "url": None}, {"text": "Short", "url": None, "offset": 1}, rows[9], rows[9]]


def decisions(result) -> list[tuple]:  # type: ignore[no-untyped-def, type-arg]
    return sorted(tuple(map(str, row.values())) for row in result.report)


LIMITS = {"url": {"enabled": True}, "minhash": {"bands": 20, "rows": 4}, "max_cluster": 2, "threshold": 0.5}


@pytest.fixture(scope="module")
def in_order(shared_dedup):  # type: ignore[no-untyped-def]
    return shared_dedup([captures_and_copies()], **LIMITS)


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=4))
def test_order_and_layout_decide_nothing_with_all_three_kinds(dedup, in_order, shuffle: random.Random, cuts: list[int]) -> None:  # type: ignore[no-untyped-def]
    rows, expected = captures_and_copies(), in_order
    assert min(expected.counts[name] for name in ("url", "exact", "near", "full_clusters")) > 0
    shuffled = rows[:]
    shuffle.shuffle(shuffled)
    result = dedup([shuffled[a:b] for a, b in pairwise([0, *sorted(cuts), len(rows)])], **LIMITS)
    assert decisions(result) == decisions(expected)
    assert sorted(result.kept) == sorted(expected.kept)
    assert result.sources == expected.sources and result.counts == expected.counts


@pytest.mark.parametrize("verification", ["exact", "estimate"])
def test_every_document_that_goes_is_like_one_that_stays(dedup, verification: str) -> None:  # type: ignore[no-untyped-def]
    draw, texts = random.Random(3), list[str]()
    for number in range(10):
        text = words(50, number)
        for _ in range(6):
            texts.append(" ".join(text))
            for _ in range(draw.randrange(4)):
                text[draw.randrange(50)] = f"new{draw.randrange(10**6)}"
    rows = [{"text": text, "url": f"u/{i}"} for i, text in enumerate(texts)]
    result = dedup([rows[:25], rows[25:]], verification=verification, minhash={"bands": 25, "rows": 5}, threshold=0.7)
    text_of = {row["id"]: given["text"] for row, given in zip(result.report, rows, strict=True)}
    kept, gone = {row["id"] for row in result.data}, [row for row in result.report if not row["kept"]]
    for row in gone:
        a, b = shingles(text_of[row["id"]]), shingles(text_of[row["kept_id"]])
        true = len(a & b) / len(a | b)
        assert row["kept_id"] in kept
        if row["verified"] == "minhash_estimate":
            assert row["similarity"] >= 0.7 and abs(row["similarity"] - true) < 0.25  # six standard errors
        else:
            assert row["similarity"] == true >= 0.7 and row["verified"] == ("exact" if true == 1 else "exact_jaccard")
    assert ["minhash_estimate" in {row["verified"] for row in gone}, len(gone) > 20] == [verification == "estimate", True]


def test_near_copies_that_no_task_can_hold_leave_few_of_each_other(dedup, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    rows = family(40, 200)
    copies = [{"text": "quite short", "url": f"s/{i}"} for i in range(100)]
    assert len(dedup([rows, copies]).kept) == 2
    monkeypatch.setattr(candidates, "GROUP_WORDS", 3000)  # about ten of the near copies; the exact ones need more
    result = dedup([rows, copies])
    assert result.counts["exact"] == 99 and result.counts["apart"] > 2
    assert 4 <= len(result.kept) <= 10
    assert any("candidates were left apart" in warning for warning in result.warnings)


@pytest.mark.parametrize(("config", "words"), [({}, 1_500), ({"url": {"enabled": True}}, 10**6)])
def test_how_the_work_is_cut_decides_nothing(dedup, config: dict, words: int, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def, type-arg]
    rows = captures_and_copies()
    expected = dedup([rows[:20], [], rows[20:]], **config)
    monkeypatch.setattr(candidates, "TASK_KEYS", 25)
    monkeypatch.setattr(candidates, "GROUP_WORDS", words)
    result = dedup([rows[:20], [], rows[20:]], **config)
    assert (result.report, result.data, result.clusters) == (expected.report, expected.data, expected.clusters)
    assert len(result.run.plan) > len(expected.run.plan) + 20


def test_copies_that_differ_in_their_shingles_are_judged_alike_in_any_order(dedup) -> None:  # type: ignore[no-untyped-def]
    """The texts have equal letters in different case: they are exact copies, and their order must not matter."""
    text = " ".join(words(60, 3))
    near = text[:-40] + "x" * 40
    rows = [{"text": t, "url": str(n)} for n, t in enumerate([text.upper(), text, text.title(), near, near.upper()])]
    options = {"minhash": {"unit": "characters", "ngram": 12, "normalisation": "none", "bands": 20, "rows": 4, "min_words": 20}}
    found = {
        tuple(sorted((row["url"], row["kept_id"], row["similarity"], row["verified"]) for row in dedup([list(order)], **options).report))
        for order in list(permutations(rows))[::20]
    }
    assert len(found) == 1
    assert [verified for _, _, _, verified in next(iter(found))].count("exact") == 3
