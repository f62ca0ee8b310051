"""What the Ray engine decides before Ray is there: whether it is worth it, where it is, and what a worker asks of a node."""

from typing import Any

import pytest

from corpusmill.pipeline.engine import Job
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.on_ray import engine as on_ray
from corpusmill.pipeline.on_ray.engine import FEW_BYTES, FEW_BYTES_BESIDE, FEW_PIECES, RayEngine
from corpusmill.pipeline.stage import Piece


@pytest.mark.parametrize(
    ("sizes", "gpus", "address", "little"),
    [
        ([FEW_BYTES], 0.0, "", True),
        ([FEW_BYTES + 1], 0.0, "", False),
        ([FEW_BYTES_BESIDE] * 2, 0.0, "local", True),
        ([FEW_BYTES_BESIDE + 1] * 2, 0.0, "", False),
        ([1] * FEW_PIECES, 0.0, "", True),
        ([1] * (FEW_PIECES + 1), 0.0, "", False),
        ([1], 0.5, "", False),
        ([1], 0.0, "127.0.0.1:6379", False),
    ],
)
def test_what_is_little(sizes: list[int], gpus: float, address: str, little: bool, stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    job = Job("lines", "for_ray.lines:LinesWorker", stages.LinesConfig(), "run", gpus=gpus)
    pieces = [Piece(str(number), (FileRef("a", "b", size),)) for number, size in enumerate(sizes)]
    assert RayEngine()._is_little(job, pieces) is little


def test_an_address_for_jobs_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(InputError, match=r"^RAY_ADDRESS=http://127\.0\.0\.1:8265: .*make submit"):
        RayEngine().connect()


@pytest.mark.parametrize(
    ("nodes", "placed"),
    [
        ([(4, 900, True), (0, 100, True)], {"memory": 900 << 20}),
        ([(4, 1024, True), (0, 9000, True)], {"memory": 1024 << 20}),
        ([(4, 899, True), (0, 9000, True)], {}),  # the head, which has no CPU for it
        ([(4, 899, True), (4, 9000, False)], {}),
        ([], {}),
    ],
)
def test_memory_is_asked_for_only_where_a_node_has_so_much(nodes: list[tuple[int, int, bool]], placed: dict[str, int]) -> None:
    told = [{"Alive": alive, "Resources": {"CPU": cpus, "memory": float(memory << 20)}} for cpus, memory, alive in nodes]
    assert on_ray._place(told, 900) == placed and on_ray._place(told, 0) == {}
