"""Tests every target on its seeds, on the found cases, and on some seeded mutations of both; `make fuzz` tries many more."""

import os

import pytest
from fuzzing import CASES, limits, load, mutants, names, offline

#: Mutations for each target, fewer for those that copy folders or load models.
MUTATIONS = 150
FEWER = {
    "training_state": 10,
    "model_folder": 15,
    "run_folder": 15,
    "token_shards": 20,
    "fasttext": 30,
    "real_archives": 80,
    "recipe": 10,
    "dedup_index": 20,
}


def test_every_case_belongs_to_a_target() -> None:
    assert {folder.name for folder in CASES.iterdir()} <= set(names())
    assert len(names()) >= 15


@pytest.mark.parametrize("name", names())
def test_target(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    target = load(name)
    seeds = target.seeds()
    cases = {path.name: path.read_bytes() for path in target.cases()}
    inputs = [(f"seed {number}", data) for number, data in enumerate(seeds)] + list(cases.items())
    count = FEWER.get(name, MUTATIONS) * int(os.environ.get("FUZZ_MUTATIONS", "1"))
    inputs += [(f"mutation {number}", data) for number, data in enumerate(mutants([*seeds, *cases.values()], name, count))]
    with offline():
        for what, data in inputs:
            try:
                with limits():
                    target.fuzz(data)
            except BaseException as error:
                raise AssertionError(f"{name}, {what}: {type(error).__name__}: {error}\n{data[:2000]!r}") from error
