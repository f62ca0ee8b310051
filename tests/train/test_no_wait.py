"""Tests that a micro-batch never waits for a device: on fake tensors, operations whose result the host must know are errors.

A fake GPU needs a torch that is built for CUDA; every torch has a fake CPU, which refuses the same operations.
"""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from preference_pairs import pair_table
from token_sets import TokenArray
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from corpusmill.pipeline.storage import Storage
from corpusmill.train import model as models
from corpusmill.train.align import AlignmentJob
from corpusmill.train.checkpoint import model_of
from corpusmill.train.data import DataShare, WindowLoader, counted_places, needed, pack
from corpusmill.train.model import Objective, blank_model, step_totals
from corpusmill.train.options import Architecture
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.sft import TuningJob
from corpusmill.train.template import Encoded
from corpusmill.train.tuning import AlignConfig, StartModel

ARCH = Architecture(vocab_size=600, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, ffn=48, context=256, qk_norm=True)
CPU = torch.device("cpu")
GPU = pytest.param("cuda", marks=pytest.mark.skipif(torch.version.cuda is None, reason="this torch is built without CUDA"))


@pytest.fixture(autouse=True)
def _no_fake_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(models, "LOGITS", 2000)
    yield
    models.rotary_table.cache_clear()


def sequences(count: int) -> list[Encoded]:
    generator = np.random.default_rng(0)
    return [Encoded(generator.integers(4, 600, 30 + n).astype(np.int32), np.arange(30 + n) >= 20) for n in range(count)]


def pretraining(_: Storage) -> tuple[Any, tuple[Any, ...]]:
    tokens = np.random.default_rng(0).integers(0, 9, 5000, dtype=np.uint16)
    objective = Objective()
    return objective, WindowLoader(TokenArray(tokens), 256, 4, 0, document_mask=True).load(0)


def tuning(_: Storage) -> tuple[Any, tuple[Any, ...]]:
    packed = pack(sequences(7), 256)
    targets = torch.from_numpy(packed.targets)
    batch = torch.from_numpy(packed.ids), targets, needed(torch.from_numpy(packed.segments)), counted_places(targets)
    return SimpleNamespace(loss=partial(TuningJob.loss, None), metrics=()), batch


def alignment(run: Storage) -> tuple[Any, tuple[Any, ...]]:
    job = AlignmentJob(
        AlignConfig(batch=3), StartModel("pretrain/model", run.path("pretrain/model")), pair_table(3), ParallelDims.single(CPU)
    )
    job.sides.reference = torch.zeros(6)
    return job, next(job.batches(0, DataShare()))


@pytest.mark.parametrize("make", [pretraining, tuning, alignment])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_micro_batch_asks_the_device_for_nothing(make: Any, device: str, pretrained_run: Storage) -> None:
    objective, batch = make(pretrained_run)
    assert batch[2] is not None  # several documents in a row
    with FakeTensorMode() as mode:
        weights = {name: torch.empty(p.shape, device=device) for name, p in blank_model(ARCH).named_parameters()}
        model = model_of(ARCH, weights).requires_grad_()
        loss = objective.loss(model, tuple(mode.from_tensor(part).to(device) for part in batch))
        loss.total.backward()
        totals = step_totals([loss], objective.metrics, torch.device(device))
        assert totals.device.type == loss.total.device.type == device
        assert all(p.grad is not None for p in model.parameters())
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):  # the test sees what it is for
            totals.sum().item()


def test_a_block_mask_is_made_without_a_look_at_its_values() -> None:
    with FakeTensorMode():
        mask = models.block_mask(torch.empty(3, 300, dtype=torch.int64))
    assert mask.kv_indices.shape == (3, 1, 3, 3)
