import pytest

from corpusmill.pipeline.on_ray.share import Share, share_out


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9, **({"GPU": gpus} if gpus else {})}}


@pytest.mark.parametrize(
    ("nodes", "gpus", "actors", "expected"),
    [
        ([node(16, 2)], 0, 16, Share(16)),  # nobody asks for a GPU
        ([node(16), node(8)], 1, 24, Share(24)),  # there is none
        ([node(16, 1, alive=False), node(8)], 1, 8, Share(8)),
        ([node(16, 2)], 1, 16, Share(2, 8, 1)),
        ([node(16, 2)], 0.5, 16, Share(4, 4, 0.5)),
        ([node(30, 1)], 0.1, 16, Share(10, 3, 0.1)),  # 1 / 0.1 is a little less than 10
        ([node(16, 2)], 1, 1, Share(1, 16, 1)),  # one piece
        ([node(64), node(16, 4), node(32, 4)], 1, 112, Share(8, 4, 1)),  # so much fits on either
        ([node(4, 8)], 1, 4, Share(4, 1, 1)),
        ([node(2, 8)], 1, 8, Share(8, 1, 1)),  # fewer CPUs than GPUs
        ([node(16, 0.25)], 0.5, 16, Share(16)),
    ],
)
def test_shares(nodes: list[dict], gpus: float, actors: int, expected: Share) -> None:
    assert share_out(nodes, gpus, actors) == expected
