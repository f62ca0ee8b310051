"""Tests on a GPU: the CPU's numbers, compiled and not; masks; resuming; shapes that change; two ranks on one card; memory."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_runs import Case, Rows, first_step, fresh
from preference_pairs import pair_table
from ranks import run_ranks
from torch import Tensor
from torch._dynamo.utils import counters

from corpusmill.pipeline.storage import Storage
from corpusmill.train.align import AlignmentJob
from corpusmill.train.data import Batch, DataShare
from corpusmill.train.loop import fit
from corpusmill.train.model import Llama, attend, block_mask, dense_mask
from corpusmill.train.options import Architecture, LoopConfig, ParallelConfig
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.parallel.model import ParallelModel, prepare
from corpusmill.train.tuning import AlignConfig, StartModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
SHAPE = {"vocab_size": 99, "layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 96, "context": 256, "qk_norm": True}


class OnGPU(Rows):
    """The rows of `Rows`, on the GPU."""

    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        for batch in super().batches(step, share):
            yield tuple(None if part is None else part.cuda() for part in batch)  # type: ignore[misc]


class Stopped(BaseException):
    """Ends a training as abruptly as a signal."""


class UntilFour(OnGPU):
    def batches(self, step: int, share: DataShare) -> Iterator[Batch]:
        if step == 4:
            raise Stopped
        return super().batches(step, share)


def gradients(case: Case, device: str, **options: Any) -> tuple[float, dict[str, Tensor]]:
    """Returns the loss and the gradients of a step."""
    model = fresh(case).to(device)
    parallel_model = prepare(model, ParallelDims.single(torch.device(device)), LoopConfig(**options))
    parts = parallel_model.backward((OnGPU if device == "cuda" else Rows)(case, model.arch), 0)
    total = sum(float(part.total.detach()) for part in parts)
    return total, {name: p.grad.float().cpu() for name, p in parallel_model.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05), ("bf16-params", 0.05)])
@pytest.mark.parametrize("documents", [False, True])
def test_a_step_has_the_numbers_of_a_cpu(compiled: bool, precision: Any, tolerance: float, documents: bool) -> None:
    case = Case(arch=SHAPE, documents=documents, dtype=torch.float32, micro=4)
    loss, wanted = gradients(case, "cpu", precision="fp32")
    found, grads = gradients(case, "cuda", precision=precision, compile=compiled)
    assert found == pytest.approx(loss, rel=tolerance)
    for name, expected in wanted.items():
        assert float((grads[name] - expected).norm() / expected.norm()) < tolerance, name


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_gradients_through_a_block_mask_are_those_of_a_dense_one(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    earliest = ((torch.rand(3, 300, generator=generator) < 0.02).long() * torch.arange(300)).cummax(1).values
    given = [torch.randn(3, heads, 300, 32, generator=generator) for heads in (4, kv_heads, kv_heads)]
    dense = [heads.clone().requires_grad_() for heads in given]
    blocks = [heads.cuda().requires_grad_() for heads in given]
    wanted, found = attend(*dense, dense_mask(earliest)), attend(*blocks, block_mask(earliest.cuda()))
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-2)
    wanted.sum().backward(), found.sum().backward()
    for mine, theirs in zip(blocks, dense, strict=True):
        torch.testing.assert_close(mine.grad.cpu(), theirs.grad, rtol=0, atol=2e-2)


@pytest.mark.parametrize("documents", [False, True])
def test_a_resumed_run_and_another_have_the_bits_of_one(tmp_path: Path, documents: bool) -> None:
    case = Case(arch=SHAPE, documents=documents, dtype=torch.float32, micro=4)
    found = []
    for folder, kind, begin in (("straight", OnGPU, 0), ("again", OnGPU, 0), ("stopped", UntilFour, 0), ("stopped", OnGPU, 3)):
        model = fresh(case).cuda()
        with suppress(Stopped):
            files = {"state": tmp_path / folder, "log": tmp_path / f"{folder}.jsonl"}
            result = fit(model, kind(case, model.arch), LoopConfig(steps=6, save_every=3, async_save=False), **files)  # type: ignore[arg-type]
            assert result.resumed_from == begin
            found.append([p.detach().cpu() for p in model.parameters()])
    for others in zip(*found, strict=True):
        assert torch.equal(others[0], others[1]) and torch.equal(others[0], others[2])


def test_pairs_of_all_lengths_are_computed_by_few_kernels(pretrained_run: Storage, recwarn: pytest.WarningsRecorder) -> None:
    dims = ParallelDims.single(torch.device("cuda"))
    start = StartModel("pretrain/model", pretrained_run.path("pretrain/model"))
    objective = AlignmentJob(AlignConfig(batch=4, micro_batch=3), start, pair_table(40, words=60), dims)
    parallel_model = prepare(objective.model, dims, LoopConfig(), objective.folder)
    objective.begin(parallel_model)
    torch._dynamo.reset()
    counters.clear()
    for step in range(20):
        parallel_model.backward(objective, step)
    assert not counters["recompile_limit"] and not any("stores all scores" in str(each.message) for each in recwarn)
    graphs = counters["stats"]["unique_graphs"]
    for step in range(20, 40):
        parallel_model.backward(objective, step)
    assert counters["stats"]["unique_graphs"] == graphs


def on_one_card(cases: list[Case]) -> list[dict[str, Any]]:
    """Returns a step's results of a rank; NCCL refuses two ranks on one card, gloo does not."""
    device = torch.device("cuda", 0)
    found = []
    for case in cases:
        result = first_step(case, ParallelDims.distributed(ParallelConfig.model_validate(case.parallel), device), OnGPU)
        found.append({"norm": result["norm"], "sums": result["sums"].cpu(), "grads": {n: g.cpu() for n, g in result["grads"].items()}})
    return found


def test_two_ranks_on_one_card_have_the_gradients_of_one() -> None:
    layouts: list[dict[str, Any]] = [{"replicate": 2}, {"shard": 2}, {"tensor": 2}]
    options = {"compile": False, "precision": "fp32"}
    cases = [Case(layout, arch=SHAPE, documents=True, dtype=torch.float32, loop=options) for layout in layouts]
    _, wanted = gradients(cases[0], "cuda", **options)  # the sum's gradient, as in `first_step`
    for results in run_ranks(on_one_card, 2, cases):
        for result in results:
            for name, expected in wanted.items():
                assert float((result["grads"][name] - expected.cpu()).norm() / expected.norm()) < 1e-3, name


def test_an_evaluation_never_has_all_logits() -> None:
    arch = Architecture.model_validate({**SHAPE, "vocab_size": 2**17, "context": 512})
    model = Llama(arch).cuda()
    ids = torch.randint(2**17, (64, 512), device="cuda")
    ParallelModel(model, "auto").nats(ids[:1], ids[:1], None)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ParallelModel(model, "auto").nats(ids, ids, None)
    assert torch.cuda.max_memory_allocated() - before < 4 * 2**30  # a few times LOGITS in fp32; all logits are 16 GiB


def test_grouped_heads_in_fp32_store_no_scores() -> None:
    queries, keys, values = (torch.randn(1, heads, 4096, 64, device="cuda", requires_grad=True) for heads in (8, 2, 2))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attend(queries, keys, values, None).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 8 * 4096**2 * 4 / 2  # half of the scores
