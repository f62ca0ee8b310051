"""Compares steps of instruction tuning and DPO with TRL's trainers: same model, examples, optimiser and fp32, on the CPU.

    python benchmarks/post_training.py MODEL INSTRUCTIONS PAIRS [--batch 16] [--steps 20] [--rounds 3] [--threads 1]

MODEL is a model folder with a chat template, such as `RUN/sft/model`; the files are JSONL of instructions and of preference pairs.

A step is that of the whole training: batch, forward, backward, clipping, AdamW, logging. corpusmill's steps are those of the stages `sft`
and `align`. TRL gets the options that are fast on a CPU: no checkpointing, fused AdamW, no evaluation, saving or logging, no loader
processes, and precomputed reference log-probabilities, as in corpusmill. Tuning packs examples into rows, so a step of corpusmill has the
rows that hold about `batch` examples. TRL is measured with padded batches of the same examples, and with its own packing into as many
rows, and its faster way counts.
Both train in turns of `steps` steps, of which the first three are left out, in one process, so TRL also has the memory settings of
`train/compute.py`. Prints medians of milliseconds a step, wall and processor time, one JSON object a line.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# isort: off
import corpusmill.train  # noqa: F401 - before torch, so that threads wait as they do in a run

# isort: on
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from corpusmill.pipeline.storage import Storage
from corpusmill.train.align import PAIRS, AlignmentJob, prepare_pair, read_pairs
from corpusmill.train.loop import fit
from corpusmill.train.options import row_length
from corpusmill.train.parallel import ParallelDims
from corpusmill.train.sft import EXAMPLES, FinetuningJob, TuningJob, prepare, read_examples
from corpusmill.train.template import load_chat
from corpusmill.train.tuning import AlignConfig, SftConfig, StartModel, items_table

CPU = ParallelDims.single(torch.device("cpu"))
LR = 3e-4
#: Wall and processor time at the end of each step.
Clock = list[tuple[float, float]]


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Ours:
    """A stage's training in the loop, from its start in each turn."""

    def __init__(self, job: FinetuningJob, steps: int, folder: Path):
        self.job, self.folder, self.turn = job, folder, 0
        self.loop = job.loop.model_copy(update={"steps": steps, "save_every": steps + 1, "precision": "fp32"})

    def __call__(self) -> Clock:
        clock = [now()]
        self.turn += 1
        fit(
            self.job.model, self.job, self.loop, dims=CPU, start=self.job.folder, first=self.job.begin,
            state=self.folder / f"state{self.turn}", log=self.folder / f"log{self.turn}.jsonl",
            evaluate=lambda parallel_model, done: clock.append(now()) or {}, evaluate_every=1,
        )  # fmt: skip
        return clock


class Theirs(TrainerCallback):
    """A trainer of TRL, continued from turn to turn."""

    def __init__(self, kind: type, model: Path, rows: list[dict[str, Any]], config: Any):
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.padding_side = "right"
        policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self.trainer = kind(policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[self])

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.clock.append(now())

    def __call__(self) -> Clock:
        self.clock = [now()]
        self.trainer.train()
        return self.clock


def settings(folder: Path, batch: int, steps: int) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": LR, "max_length": None,
        "optim": "adamw_torch_fused", "gradient_checkpointing": False, "bf16": False, "use_cpu": True, "dataloader_num_workers": 0,
        "save_strategy": "no", "logging_strategy": "no", "report_to": [], "disable_tqdm": True,
    }  # fmt: skip


def in_turns(rounds: int, work: dict[str, Callable[[], Clock]]) -> dict[str, dict[str, float]]:
    """Returns each side's median milliseconds a step, wall and processor."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, turn in work.items():
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # TRL prints its progress
                clock = turn()
            taken[name] += [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(clock[3:])]
    return {
        name: {"ms": 1e3 * statistics.median(wall for wall, _ in steps), "processor_ms": 1e3 * statistics.median(cpu for _, cpu in steps)}
        for name, steps in taken.items()
    }


def loop(given: argparse.Namespace) -> dict[str, Any]:
    return {"steps": 10**6, "threads": given.threads, "spike": 0, "async_save": False, "optimizer": {"kind": "adamw", "lr": LR}}


def tuning(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    encoder, model = load_chat(Storage(str(given.model))), json.loads((given.model / "config.json").read_text())
    context = row_length(None, model["max_position_embeddings"], "sft.context")
    prepared = [prepare(example, encoder, context) for example in read_examples([str(given.instructions)], 0)]
    examples = [example for example in prepared if not example.failed and not example.truncated]
    start, table = StartModel("model", str(given.model)), items_table(examples, EXAMPLES)
    rows = TuningJob(SftConfig(held_out=0), start, table, CPU).rows.n_rows
    batch = max(round(given.batch * rows / len(examples)), 1)
    config = SftConfig.model_validate({"batch": batch, "held_out": 0, "epochs": 10**6, "loop": loop(given)})
    ours = TuningJob(config, start, table, CPU)
    chats = [{"messages": list(example.messages)} for example in examples]
    together = round(batch * len(examples) / rows)
    padded = SFTConfig(**settings(folder, together, given.steps), assistant_only_loss=True)
    packed = SFTConfig(**settings(folder, batch, given.steps) | {"max_length": context}, assistant_only_loss=True, packing=True)
    work = {
        "ours": Ours(ours, given.steps, folder / "sft"),
        "trl_padded": Theirs(SFTTrainer, given.model, chats, padded),
        "trl_packed": Theirs(SFTTrainer, given.model, chats, packed),
    }
    return {"examples": len(examples), "rows": rows, "examples_a_step": together, "rows_a_step": batch, **in_turns(given.rounds, work)}


def alignment(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    encoder, model = load_chat(Storage(str(given.model))), json.loads((given.model / "config.json").read_text())
    context = row_length(None, model["max_position_embeddings"], "align.context")
    pairs = [pair for pair in read_pairs([str(given.pairs)], 0) if not prepare_pair(pair, encoder, context).failed]
    config = AlignConfig.model_validate({"batch": given.batch, "held_out": 0, "epochs": 10**6, "nll_weight": 0, "loop": loop(given)})
    ours = AlignmentJob(config, StartModel("model", str(given.model)), items_table(pairs, PAIRS), CPU)
    rows = [{"prompt": list(pair.prompt), "chosen": list(pair.chosen), "rejected": list(pair.rejected)} for pair in pairs]
    theirs = DPOConfig(**settings(folder, given.batch, given.steps), beta=config.beta, precompute_ref_log_probs=True)
    work = {"ours": Ours(ours, given.steps, folder / "dpo"), "trl": Theirs(DPOTrainer, given.model, rows, theirs)}
    return {"pairs": len(pairs), "pairs_a_step": given.batch, **in_turns(given.rounds, work)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("model", "instructions", "pairs"):
        parser.add_argument(name, type=Path)
    for name, value in (("batch", 16), ("steps", 20), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name, compare in (("sft", tuning), ("dpo", alignment)):
        with tempfile.TemporaryDirectory() as folder:
            found = compare(given, Path(folder))
        peers = [value for key, value in found.items() if key.startswith("trl")]
        for kind in ("ms", "processor_ms"):
            found[f"faster_{kind}"] = min(peer[kind] for peer in peers) / found["ours"][kind]
        rounded = {key: {k: round(v, 1) for k, v in value.items()} if isinstance(value, dict) else value for key, value in found.items()}
        print(
            json.dumps(
                {"what": name, "threads": given.threads, **{k: round(v, 2) if isinstance(v, float) else v for k, v in rounded.items()}}
            )
        )


if __name__ == "__main__":
    main()
