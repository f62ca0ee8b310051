"""Actors that wait for the next phase: who gets one, and when they go."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from corpusmill.pipeline.on_ray.pool import Pool


class Actor:
    """What the pool sees of an actor."""

    def __init__(self) -> None:
        self.rested = 0
        self.rest = SimpleNamespace(remote=self._rest)

    def _rest(self) -> None:
        self.rested += 1


@pytest.fixture
def killed() -> list[Any]:
    return []


def pool_of(killed: list[Any], stay: float | None = None) -> Pool:
    return Pool(SimpleNamespace(kill=killed.append, exceptions=SimpleNamespace(RayError=RuntimeError)), stay)


def test_an_actor_with_enough_memory_is_taken_and_one_with_less_makes_room(killed: list[Any]) -> None:
    pool, small, large = pool_of(killed), Actor(), Actor()
    pool.give(small, 0)
    pool.give(large, 100)
    assert pool.take(100) is large and (small.rested, large.rested, killed) == (1, 1, [])
    assert pool.take(100) is None and killed == [small]
    pool.give(large, 0)  # it has worked for a phase that asks for none
    assert pool.take(50) is large and pool.take(0) is None


def test_they_go_when_nobody_has_wanted_them_for_a_while(killed: list[Any]) -> None:
    pool, actors = pool_of(killed, stay=0.2), [Actor(), Actor()]
    pool.give(actors[0], 0)
    assert pool.take(0) is actors[0]
    for actor in actors:
        pool.give(actor, 0)
    for _ in range(100):
        if len(killed) == 2:
            break
        time.sleep(0.05)
    assert set(killed) == set(actors) and pool.take(0) is None


def test_when_ray_ends_nothing_is_asked_of_it_later(killed: list[Any]) -> None:
    pool = pool_of(killed, stay=0.1)
    pool.give(Actor(), 0)
    pool.forget()
    time.sleep(0.4)
    assert killed == [] and pool.take(0) is None
