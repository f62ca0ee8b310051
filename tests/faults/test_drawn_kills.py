"""Tests the draw of kills for the soak (`make soak-faults`): targets, frequencies, stages and order."""

from collections import Counter

import pytest
from victims import KILLED, TARGETS, WITH_CHILDREN, drawn
from whole_run import STAGES

RUNS = 400


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_every_target_gets_its_share(engine: str) -> None:
    kills = [kill for number in range(RUNS) for kill in drawn(f"1-{number}", engine)]
    elsewhere = Counter(kill.target for kill in kills if kill.stage not in WITH_CHILDREN)
    assert elsewhere.keys() == TARGETS[engine].keys()
    for target, tenths in TARGETS[engine].items():
        assert elsewhere[target] / elsewhere.total() == pytest.approx(tenths / 10, abs=0.03)
    where_children_are = Counter(kill.target for kill in kills if kill.stage in WITH_CHILDREN)
    assert where_children_are["child"] / where_children_are.total() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("engine", ["inline", "ray"])
def test_every_stage_is_killed_in_the_order_of_the_run(engine: str) -> None:
    for number in range(20):
        kills = drawn(f"2-{number}", engine)
        assert [kill.stage for kill in kills] == sorted((kill.stage for kill in kills), key=STAGES.index)
        assert {kill.stage for kill in kills} == set(KILLED[engine])
        assert all(0 <= kill.share < 1 and 0 <= kill.which < 1 for kill in kills)


def test_a_seed_gives_the_same_kills_again() -> None:
    assert drawn("3-1", "ray") == drawn("3-1", "ray") != drawn("3-2", "ray")
