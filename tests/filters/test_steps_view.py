from collections.abc import Callable

import pytest

from corpusmill.filters.step import OTHERS, STEPS, build_steps, resolve_step


def test_the_list(corpusmill: Callable) -> None:
    code, out, _ = corpusmill("steps")
    assert code == 0
    assert all(f"{name} " in out.decode() for name in STEPS) and "fineweb-2" in out.decode()


@pytest.mark.parametrize("name", STEPS)
def test_one_step(name: str, corpusmill: Callable, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = corpusmill("steps", name)
    assert code == 0
    if name not in OTHERS:
        (step,) = build_steps([resolve_step(name)])
        assert all(column in out.decode() for column in step.columns)
        assert all(f"{rule.rule.column} {rule.rule.comparison} {rule.rule.threshold}" in out.decode() for rule in step.rules)


def test_an_unknown_step(corpusmill: Callable) -> None:
    code, _, error = corpusmill("steps", "gohper")
    assert code == 2 and "gohper: no such step (expected one of language, " in error
