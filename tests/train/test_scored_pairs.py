"""Pairs from a score: which documents and continuations they are from, and that nothing but the score tells the sides apart."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.train import tasks
from corpusmill.train.preference_data import Pair
from corpusmill.train.scored_pairs import (
    TOLERANCE,
    PairLimits,
    PairPool,
    ScoredTask,
    match,
    pairs_of,
    pool_of_continuations,
    pool_of_documents,
)
from corpusmill.train.scores import FilterScore

QUALITY = FilterScore("quality", True, 0.5, False, ("quality",))
TOXICITY = FilterScore("toxicity", False, 0.5, True, ("toxicity",))
LIMITS = PairLimits(pairs=40, per_document=4, max_chars=150, best=0.5, worst=0.1)


def rude_share(texts: Sequence[str]) -> np.ndarray:
    return np.array([text.count("rude") / (text.count(" ") + 1) for text in texts])


def paragraph(words: str, number: int) -> str:
    return " ".join(f"Mill {number} {words} grain of field {k}." for k in range(12))


def documents(numbers: range, score: float | None = None) -> pa.Table:
    """Two paragraphs each, one of them rude in every fifth document; a document's score is its number's hundredth."""
    rows = []
    for n in numbers:
        text = paragraph("grinds", n) + "\n\n" + paragraph("grinds rude rude" if n % 5 == 0 else "keeps", n)
        value = n / 100 if score is None else score
        rows.append({"id": f"d{n}", "url": f"https://{'ab'[n % 2]}.test/{n}", "title": "", "text": text, "score": value, "language": "en"})
    return pa.Table.from_pylist(rows)


def nothing() -> Iterator[pa.Table]:
    return iter(())


def everything() -> Iterator[pa.Table]:
    return iter([documents(range(60)), documents(range(60, 100))])


def not_held_out(_: str) -> bool:
    return False


def test_a_score_of_documents_decides_by_documents():
    pool = pool_of_documents(QUALITY, everything, nothing, "s", LIMITS)
    assert (pool.unit, pool.scored, pool.good, pool.bad) == ("documents", 100, 0.49, 0.09)  # 51 from .49 on, 10 up to .09
    assert {s.task.source.id for s in pool.rejected} == {f"d{n}" for n in range(10)}
    assert all(s.score == s.task.source.score >= 0.49 for s in pool.chosen) and len(pool.chosen) == 80


def test_where_low_is_good_the_ends_are_swapped():
    pool = pool_of_documents(FilterScore("spam", False, None, False, ()), everything, nothing, "s", LIMITS)
    assert (pool.good, pool.bad) == (0.5, 0.9)
    assert {s.task.source.id for s in pool.rejected} == {f"d{n}" for n in range(90, 100)}


def test_what_was_dropped_for_the_score_is_rejected_and_never_chosen():
    def dropped() -> Iterator[pa.Table]:
        return iter([documents(range(200, 210), score=0.001), documents(range(300, 310), score=0.9)])

    pool = pool_of_documents(QUALITY, everything, dropped, "s", LIMITS)
    ids = {s.task.source.id for s in pool.rejected}
    assert ids & {f"d{n}" for n in range(200, 210)} and not ids & {f"d{n}" for n in range(300, 310)}
    assert all(int(s.task.source.id[1:]) < 100 for s in pool.chosen) and pool.bad == 0.09


def test_a_score_of_windows_decides_by_continuations():
    pool = pool_of_continuations(TOXICITY, rude_share, everything, nothing, "s", LIMITS)
    assert (pool.unit, pool.scored, pool.good) == ("continuations", 200, 0.0) and pool.bad > 0.1
    assert len(pool.rejected) == 20 and all("rude" in s.task.answer for s in pool.rejected)
    assert all("rude" not in s.task.answer and s.score == 0 for s in pool.chosen)
    most = {s.task.source.id: 0 for s in pool.chosen}
    for side in pool.chosen:
        most[side.task.source.id] += 1
    assert max(most.values()) <= LIMITS.per_document


def test_texts_without_a_score_are_in_no_part():
    def scorer(texts: Sequence[str]) -> np.ndarray:
        return np.where(["Mill 7 " in text for text in texts], np.nan, rude_share(texts))

    pool = pool_of_continuations(TOXICITY, scorer, everything, nothing, "s", LIMITS)
    assert pool.scored == 198 and "d7" not in {s.task.source.id for s in (*pool.chosen, *pool.rejected)}


@pytest.mark.parametrize("values", [None, 0.5])
def test_scores_that_are_all_alike_give_no_pairs(values):
    def alike() -> Iterator[pa.Table]:
        table = documents(range(30), score=0.5)
        return iter([table if values else table.set_column(4, "score", pa.nulls(30, pa.float64()))])

    pool = pool_of_documents(QUALITY, alike, nothing, "s", LIMITS)
    assert pool == PairPool([], [], "documents", 30 if values else 0, None, None) and match(pool, not_held_out, 9) == []


def test_scores_that_are_nearly_constant_give_no_pairs():
    def nearly(spread: float) -> Iterator[pa.Table]:
        values = pa.array([0.3 + spread * n / 100 for n in range(100)])
        return iter([documents(range(100)).set_column(4, "score", values)])

    pool = pool_of_documents(QUALITY, lambda: nearly(0.02), nothing, "s", LIMITS)
    assert (pool.chosen, pool.rejected, pool.scored, pool.good) == ([], [], 100, None)
    assert pool_of_documents(QUALITY, lambda: nearly(0.2), nothing, "s", LIMITS).good is not None


def test_the_same_pairs_in_any_shards():
    def other() -> Iterator[pa.Table]:
        return iter([documents(range(40, 100)), documents(range(40))])

    found = []
    for tables in (everything, other):
        pool = pool_of_continuations(TOXICITY, rude_share, tables, nothing, "s", LIMITS)
        found.append(pairs_of(TOXICITY, match(pool, not_held_out, 40), not_held_out))
    assert found[0] == found[1] and len(found[0]) == 20


def test_pairs_name_both_documents_and_both_scores():
    pool = pool_of_continuations(TOXICITY, rude_share, everything, nothing, "s", LIMITS)
    pairs = pairs_of(TOXICITY, match(pool, not_held_out, 40), not_held_out)
    from_chosen = 0
    for pair in pairs:
        assert (pair.kind, pair.url[-3:].strip("/t"), pair.chosen_score) == ("toxicity", pair.id[1:], 0.0)
        for side, name, score in ((pair.chosen, pair.id, pair.chosen_score), (pair.rejected, pair.rejected_id, pair.rejected_score)):
            assert f"Mill {name[1:]} " in side[0]["content"] and rude_share([side[0]["content"]])[0] == score
        assert pair.id != pair.rejected_id and pair.url[:14] == pair.rejected_url[:14]  # of one host, as there are enough
        from_chosen += f"Mill {pair.id[1:]} " in pair.prompt[0]["content"]
    assert 4 <= from_chosen <= 16  # to go on with the prompt is no cue


def scored_task(number, length, language, host):
    document = tasks.SourceDocument(f"d{number}", f"https://{host}.test/{number}", "", "", language)
    return ScoredTask(tasks.BuiltTask(document, "", "", "x" * length + str(number)), 0.5)


scored = st.builds(scored_task, st.integers(0, 30), st.integers(60, 200), st.sampled_from(["en", "de", None]), st.sampled_from("ab"))


@settings(max_examples=60, deadline=None)
@given(st.lists(scored, max_size=30), st.lists(scored, max_size=30), st.integers(1, 20))
def test_sides_are_alike_in_all_but_the_score(chosen, rejected, wanted):
    def held_out(identifier: str) -> bool:
        return int(identifier[1:]) % 3 == 0

    matched = match(PairPool(chosen, rejected, "", 0, 1.0, 0.0), held_out, wanted)
    assert len(matched) <= wanted
    assert len({bad.task.answer for _, bad in matched}) == len(matched)  # no text is rejected twice
    for good, bad in matched:
        lengths = sorted((len(good.task.answer), len(bad.task.answer)))
        assert lengths[1] - lengths[0] <= TOLERANCE * lengths[1]
        assert good.task.source.id != bad.task.source.id and good.task.source.language == bad.task.source.language
        assert held_out(good.task.source.id) == held_out(bad.task.source.id)
    order = [place for good, _ in matched for place, each in enumerate(chosen) if each is good]
    assert order == sorted(order)


def test_lengths_give_nothing_away():
    pool = pool_of_continuations(TOXICITY, rude_share, everything, nothing, "s", LIMITS)
    pairs: list[Pair] = pairs_of(TOXICITY, match(pool, not_held_out, 40), not_held_out)
    longer = [len(pair.chosen[0]["content"]) - len(pair.rejected[0]["content"]) for pair in pairs]
    assert abs(float(np.mean(longer))) < 8
