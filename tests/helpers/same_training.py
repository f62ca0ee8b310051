"""A training on many processes against the same one on one process."""

from typing import Any

import torch


def assert_same_training(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-10) -> None:
    """Loss, every gradient and norm of the first step, nats on every rank, and every weight and line after the last: to `tolerance`,
    relative to each tensor's norm. Both come from `parallel_runs.run`."""
    torch.testing.assert_close(found["sums"], expected["sums"], rtol=tolerance, atol=0)
    assert abs(found["norm"] / expected["norm"] - 1) < tolerance
    for kind in ("grads", "weights"):
        assert found[kind].keys() == expected[kind].keys() and found[kind]
        for name, tensor in found[kind].items():
            want = expected[kind][name]
            assert tensor.shape == want.shape and want.norm() > 0
            error = float((tensor - want).norm() / want.norm())
            assert error < tolerance, (kind, name, error)
    for nats in found["nats"]:
        torch.testing.assert_close(nats.double(), expected["nats"][0].double(), rtol=tolerance, atol=tolerance)
    assert found["count"] == expected["count"] and len(found["lines"]) == len(expected["lines"]) > 0
    for line, want in zip(found["lines"], expected["lines"]):
        assert line.keys() == want.keys() and line["count"] == want["count"]
        for key in ("loss", "grad_norm", "lr"):
            assert abs(line[key] - want[key]) <= tolerance * abs(want[key]), (line["step"], key)
