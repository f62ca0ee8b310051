"""Uses TRL as the oracle: its trainers' loss methods on the same log-probabilities, and its trainers step by step."""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from small_models import random_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from unhashed import forget_hashes

from corpusmill.pipeline.stage import Stage
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.data import places
from corpusmill.train.losses import LOSSES, LossOptions, PairLogps, pair_metrics
from corpusmill.train.template import template_files
from corpusmill.train.tuning import AlignConfig, AlignStage, SftConfig, SftStage

pytestmark = pytest.mark.rounding

LENGTHS = torch.tensor([12, 3, 1, 7, 5, 11, 2, 8])  # of four chosen and four rejected completions
MASK = torch.arange(1 + 12) < 1 + LENGTHS[:, None]  # [8, 13]: a prompt of one token before them
COMPLETIONS = MASK & (torch.arange(13) > 0)


def random_logps(seed: int) -> Tensor:
    """Returns log-probabilities of tokens, float64 [8, 12]; 0 where there is none, as TRL's models give them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 12, generator=generator, dtype=torch.float64).square().neg() * COMPLETIONS[:, 1:]


def trainer(kind: type, **attributes: object):
    """Returns a trainer with only the attributes that its loss method reads: no dataset, no model."""
    made = kind.__new__(kind)
    accelerator = SimpleNamespace(device=torch.device("cpu"), gather=lambda values: values, gather_for_metrics=lambda values: values)
    vars(made).update(
        accelerator=accelerator, model=SimpleNamespace(training=True), _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
        _tp_size=1, aux_loss_enabled=False, precompute_ref_logps=True, **attributes,
    )  # fmt: skip
    return made


def model_of(*token_logps: Tensor):
    """A model for TRL's loss methods: returns the log-probabilities of each call in turn."""
    calls = iter(token_logps)

    def model(**_):
        logps = next(calls)
        still = torch.zeros_like(logps)
        return SimpleNamespace(log_probs=logps, entropy=still, mean_logits=still, is_top1=still.bool())

    return model


def inputs() -> dict[str, Tensor]:
    return {"input_ids": torch.ones(8, 13, dtype=torch.int64), "attention_mask": MASK.long(), "completion_mask": COMPLETIONS.long()}


def pairs_of(token_logps: Tensor, reference: Tensor | None) -> PairLogps:
    return PairLogps(token_logps.sum(1).view(2, 4), None if reference is None else reference.view(2, 4), LENGTHS.view(2, 4))


def assert_same(ours: Tensor, theirs: Tensor, leaf: Tensor) -> None:
    """Checks for equal losses and equal gradients with respect to the shared log-probabilities."""
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    mine, their = (torch.autograd.grad(loss, leaf)[0] for loss in (ours, theirs))
    torch.testing.assert_close(mine, their, rtol=1e-10, atol=1e-12)
    assert mine.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "theirs", "smoothing", "beta"),
    [("sigmoid", "sigmoid", 0, 0.1), ("robust", "robust", 0.2, 0.1), ("ipo", "ipo", 0, 2.5), ("mean-sigmoid", "sigmoid_norm", 0, 2.5)],
)
def test_dpo(name, theirs, smoothing, beta):
    logps, reference = random_logps(1).requires_grad_(), random_logps(2).sum(1)
    made = trainer(
        DPOTrainer, loss_types=[theirs], loss_weights=[1.0], beta=beta, label_smoothing=smoothing, ld_alpha=None,
        f_divergence_type="reverse_kl", use_weighting=False,
    )  # fmt: skip
    batch = inputs() | {"ref_chosen_logps": reference[:4], "ref_rejected_logps": reference[4:]}
    loss = made._compute_loss(model_of(logps), batch, False)
    pairs, options = pairs_of(logps, reference), LossOptions(beta, smoothing)
    assert_same(LOSSES[name](pairs, options).mean(), loss, logps)
    measured, logged = pair_metrics(pairs, options), made._metrics["train"]
    for ours, metric in {"accuracy": "accuracies", "margin": "margins", "reward_chosen": "chosen", "reward_rejected": "rejected"}.items():
        assert measured[ours].mean().item() == pytest.approx(logged[f"rewards/{metric}"][0], rel=1e-6)


def test_conservative():
    """TRL's `sigmoid` has no label smoothing, its CPO has it: given log-ratios, it is the authors' formula."""
    logps, reference = random_logps(1).requires_grad_(), random_logps(2).sum(1)
    made = trainer(CPOTrainer, loss_type="sigmoid", beta=0.3, label_smoothing=0.2, alpha=0.0)
    losses, *_ = made.cpo_loss(*(logps.sum(1) - reference).chunk(2))
    assert_same(LOSSES["conservative"](pairs_of(logps, reference), LossOptions(0.3, 0.2)).mean(), losses.mean(), logps)


def test_simpo():
    logps = random_logps(1).requires_grad_()
    made = trainer(CPOTrainer, loss_type="simpo", beta=2.0, simpo_gamma=1.2, label_smoothing=0.0, alpha=0.0)
    losses, *_ = made.cpo_loss(*(logps.sum(1) / LENGTHS).chunk(2))
    assert_same(LOSSES["simpo"](pairs_of(logps, None), LossOptions(beta=2.0, gamma=1.2)).mean(), losses.mean(), logps)


def test_orpo():
    """TRL casts to float32; its loss is that of tuning minus the result of `odds_ratio_loss`."""
    logps = random_logps(1).float().requires_grad_()
    made = trainer(ORPOTrainer, beta=0.4)
    means = logps.sum(1) / LENGTHS
    odds, *_ = made.odds_ratio_loss(*means.chunk(2))
    ours, theirs = LOSSES["orpo"](pairs_of(logps, None), LossOptions(0.4)), -means[:4] - odds
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    mine, their = (torch.autograd.grad(losses.sum(), logps)[0] for losses in (ours, theirs))
    torch.testing.assert_close(mine, their, rtol=0, atol=1e-6)


# ---- step by step -----------------------------------------------------------------------------------

STEPS, BATCH = 10, 4
OBJECTS = ("the grain", "heavy stones", "clear water", "white flour", "many stories")


@pytest.fixture
def start(pretrained_run, tokenizer_json) -> Path:
    """Returns the folder of a model with random weights, in a run with a finished `pretrain`."""
    folder = Path(pretrained_run.path("pretrain/model"))
    shape = {"vocab_size": 600, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "context": 160}
    save_model(random_model(**shape), folder, {"tokenizer.json": tokenizer_json, **template_files(160)})
    forget_hashes(pretrained_run, "pretrain")
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return [str(path)]


def assert_same_training(run: Any, stage: Stage, execute: Any, theirs: tuple[list[float], torch.nn.Module]) -> None:
    execute(run, stage)
    losses, model = theirs
    ours = [json.loads(line)["loss"] for line in run.child(stage.name).read_bytes("logs/train.jsonl").splitlines()]
    assert ours == pytest.approx(losses, rel=1e-5) and len(ours) == STEPS
    trained, before = load_model(run.path(f"{stage.name}/model")).state_dict(), load_model(run.path("pretrain/model")).state_dict()
    for name, weight in model.state_dict().items():
        # A processor rounds the sums in its own order, and Adam divides by gradients' sizes: where a gradient is nearly zero, a step of the
        # learning rate (1e-3) may differ. 6.1e-5 was seen on AVX2.
        torch.testing.assert_close(trained[name], weight, rtol=0, atol=2e-4, msg=name)
    assert (trained["model.norm.weight"] - before["model.norm.weight"]).abs().max() > 1e-3


def their_training(kind: type, config: Any, start: Path, rows: list[dict[str, Any]], numbers: list[int], **more: Any):
    """Returns the loss of each step and the final model of a TRL trainer on the rows of these numbers in their order."""

    class Recording(kind):
        def compute_loss(self, *arguments, **keywords):
            loss = super().compute_loss(*arguments, **keywords)
            losses.append(loss.item())
            return loss

    losses: list[float] = []
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(start)
    made = Recording(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **more)
    rows = [_without_line_break(row, tokenizer.encode("\n")) for row in made.train_dataset]
    made.train_dataset = Dataset.from_list([rows[number] for number in numbers])
    made.train()
    return losses, model


def _without_line_break(row: dict[str, Any], line_break: list[int]) -> dict[str, Any]:
    """For TRL, a completion is all that the template writes after the prompt; for corpusmill it ends with its end token."""
    row = dict(row)
    for side in {"chosen_ids", "rejected_ids", "completion_ids", "KL_completion_ids"} & row.keys():
        assert row[side][-1:] == line_break
        row[side] = row[side][:-1]
    return row


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3,
        "lr_scheduler_type": "linear", "warmup_steps": 0, "adam_beta2": 0.95, "weight_decay": 0.1, "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential", "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "logging_strategy": "no",
    }  # fmt: skip


OURS = {
    "batch": BATCH, "held_out": 0, "evaluate_every": 0, "epochs": 9,
    "loop": {
        "precision": "fp32",
        "threads": 1, "steps": STEPS, "schedule": "linear", "warmup": 0, "spike": 0,
        "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1},
    },
}  # fmt: skip


def in_order(count: int, seed: int) -> list[int]:
    """Returns the numbers of a training's examples, step by step."""
    return [number for step in range(STEPS) for number in places(step * BATCH, BATCH, count, seed).tolist()]


def test_dpo_step_by_step(pretrained_run, execute, start, tmp_path):
    rows = [
        {
            "prompt": f"Tell me about mill {n}.",
            "chosen": f"Mill {n} grinds {OBJECTS[n % 5]}.",
            "rejected": f"The cart turns{' and turns' * (n % 3)}.",
        }
        for n in range(32)
    ]
    files = write_rows(tmp_path / "pairs.jsonl", rows)
    turns = [{key: [{"role": "user" if key == "prompt" else "assistant", "content": text}] for key, text in row.items()} for row in rows]
    reference = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    theirs = their_training(
        DPOTrainer, DPOConfig(**settings(tmp_path / "trl"), beta=0.05), start, turns, in_order(32, 2), ref_model=reference
    )
    stage = AlignStage(AlignConfig.model_validate({**OURS, "files": files, "beta": 0.05, "nll_weight": 0}))
    assert_same_training(pretrained_run, stage, execute, theirs)


def test_sft_step_by_step(pretrained_run, execute, start, tmp_path):
    """The examples have more than half the context, so that none shares a row; rows begin with the longest."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about mill {n}."},
                {"role": "assistant", "content": f"It grinds {OBJECTS[n % 5]}." * (9 + n % 7)},
            ]
        }
        for n in range(12)
    ]
    files = write_rows(tmp_path / "chats.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(start)
    lengths = [len(tokenizer.apply_chat_template(row["messages"])["input_ids"]) for row in rows]
    assert all(82 < length <= 161 for length in lengths)
    longest_first = sorted(range(12), key=lambda number: -lengths[number])
    numbers = [longest_first[row] for row in in_order(12, 1)]
    theirs = their_training(SFTTrainer, SFTConfig(**settings(tmp_path / "trl"), assistant_only_loss=True), start, rows, numbers)
    assert_same_training(pretrained_run, SftStage(SftConfig.model_validate({**OURS, "files": files})), execute, theirs)
