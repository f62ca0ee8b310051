"""Batches that a thread makes are those of the objective, in its order; what goes wrong there is raised where it is needed."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.train.ahead import Prefetcher
from corpusmill.train.objective import Share, TokenObjective

ALONE = Share()


class Numbers(TokenObjective):
    """Batches that are their own numbers, as many a step as `counts` says."""

    def __init__(self, counts: list[int], broken: int = -1, seconds: float = 0.0):
        self.counts, self.broken, self.seconds, self.made, self.threads = counts, broken, seconds, [], set()

    def batches(self, step: int, share: Share) -> Iterator[tuple[int, int, int]]:  # type: ignore[override]
        for number in range(self.counts[step]):
            if step == self.broken:
                raise KeyboardInterrupt
            time.sleep(self.seconds)
            self.threads.add(threading.current_thread().name)
            self.made.append((step, share.index, number))
            yield step, share.index, number


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6), first=st.integers(0, 5))
def test_all_batches_in_turn_from_any_step_on_and_none_beyond_the_last(counts: list[int], first: int) -> None:
    plain = Numbers(counts)
    with Prefetcher(Numbers(counts), len(counts)) as ahead:
        for step in range(min(first, len(counts) - 1), len(counts)):
            assert list(ahead.batches(step, ALONE)) == list(plain.batches(step, ALONE))
        assert ahead.objective.made == plain.made  # type: ignore[attr-defined]


def test_the_next_batch_is_made_while_one_is_computed() -> None:
    numbers = Numbers([1, 1, 1])
    with Prefetcher(numbers, 3) as ahead:
        for step in range(2):
            assert list(ahead.batches(step, ALONE)) == [(step, 0, 0)]
            deadline = time.monotonic() + 30
            while (step + 1, 0, 0) not in numbers.made:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    assert threading.current_thread().name not in numbers.threads and len(numbers.threads) == 1


def test_only_what_is_waited_for_counts_as_waiting() -> None:
    with Prefetcher(Numbers([1] * 6, seconds=0.05), 6) as ahead:
        for step in range(3):
            list(ahead.batches(step, ALONE))
        behind = ahead.waited
        for step in range(3, 6):
            time.sleep(0.2)  # computing
            list(ahead.batches(step, ALONE))
    assert behind > 0.1 and ahead.waited - behind < 0.05


def test_a_step_that_was_left_is_taken_from_its_beginning() -> None:
    with Prefetcher(Numbers([3, 2, 2]), 3) as ahead:
        list(ahead.batches(0, ALONE))
        assert next(ahead.batches(1, ALONE)) == (1, 0, 0)
        assert list(ahead.batches(1, ALONE)) == [(1, 0, 0), (1, 0, 1)]
        assert list(ahead.batches(1, Share(1, 2))) == [(1, 1, 0), (1, 1, 1)]


def test_what_fails_in_the_thread_is_raised_at_its_own_step_and_again() -> None:
    with Prefetcher(Numbers([2, 2, 2], broken=1), 3) as ahead:
        assert len(list(ahead.batches(0, ALONE))) == 2
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                list(ahead.batches(1, ALONE))


def test_everything_else_is_the_objective() -> None:
    numbers = Numbers([1])
    with Prefetcher(numbers, 1) as ahead:
        assert ahead.of_logits == numbers.of_logits and ahead.metrics == () and ahead.z_loss == 0.0
