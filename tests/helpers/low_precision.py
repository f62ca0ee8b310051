"""A small model, rows of random tokens and a loop over them, in any precision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from corpusmill.train.data import DataShare
from corpusmill.train.loop import FitResult, fit
from corpusmill.train.model import Llama, Objective, initialise
from corpusmill.train.options import Architecture, LoopConfig

ARCH = Architecture(vocab_size=31, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, ffn=48, context=16)


class Rows(Objective):
    """Random rows."""

    def batches(self, step: int, share: DataShare) -> Iterator[Any]:
        ids = torch.randint(31, (4, 17), generator=torch.Generator().manual_seed(step))
        for rows in ids.split(2):
            yield rows[:, :-1], rows[:, 1:], None


def fresh() -> Llama:
    model = Llama(ARCH)
    initialise(model, 7)
    for name, p in model.named_parameters():  # no zeros, so that no gradient is zero
        if not p.any():
            torch.nn.init.normal_(p, 0.0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


def run(folder: Path, precision: str, **options: object) -> tuple[Llama, FitResult]:
    model = fresh()
    config = LoopConfig.model_validate({"steps": 12, "save_every": 4, "warmup": 2, "threads": 1, "precision": precision, **options})
    return model, fit(model, Rows(), config, state=folder / "state", log=folder / "train.jsonl")
