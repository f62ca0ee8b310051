"""Log-probabilities against torch's own, one sequence at a time."""

import numpy as np
import pytest
import torch

from corpusmill.train.architecture import Architecture
from corpusmill.train.logprobs import NOBODY, RowForm, collate, sum_logps
from corpusmill.train.model import Llama, initialise
from corpusmill.train.template import Encoded


@pytest.fixture
def model() -> Llama:
    model = Llama(Architecture(vocab_size=99, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=32))
    initialise(model, 0)
    for seed, parameter in enumerate(model.parameters()):
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    return model


def some() -> list[Encoded]:
    generator = np.random.default_rng(0)
    return [Encoded(generator.integers(4, 99, n).astype(np.int32), np.arange(n) >= 3) for n in (6, 20, 11)]


def test_sums_are_those_of_each_sequence_alone(model):
    batch = collate(some(), 32)
    assert int((batch.labels[..., 1] != NOBODY).sum()) == 5 + 19 + 10
    logps = sum_logps(model.double(), batch)
    assert logps.counts.tolist() == [3, 17, 8] and logps.numbers.tolist() == [0, 1, 2]
    for sequence, found in zip(some(), logps.sums):
        ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
        logps = torch.log_softmax(model(ids[:, :-1]), -1)[0].gather(1, ids[0, 1:, None])[:, 0]
        torch.testing.assert_close(found, logps[2:].sum(), rtol=1e-12, atol=0)


def test_sums_of_a_bf16_model_are_taken_in_fp32(model):
    assert sum_logps(model.bfloat16(), collate(some(), 32)).sums.dtype == torch.float32


def test_gradients_reach_the_weights(model):
    sum_logps(model, collate(some(), 32)).sums.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_rows_of_a_pipeline_are_alike_and_give_the_same(model):
    model = model.double()
    packed, fixed = collate(some(), 32), collate(some(), 32, numbers=[7, 3, 5], form=RowForm(fixed=True))
    assert packed.ids.shape[0] < 3 and fixed.ids.shape == (3, 32)
    found = sum_logps(model, fixed)
    assert found.numbers.tolist() == [3, 5, 7]
    torch.testing.assert_close(found.sums[[2, 0, 1]], sum_logps(model, packed).sums, rtol=1e-12, atol=0)


def test_tensor_ranks_can_share_out_a_row():
    assert collate(some()[:1], 32, form=RowForm(multiple=4)).ids.shape == (1, 8)
