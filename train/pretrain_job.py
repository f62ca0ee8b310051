"""What the stage `pretrain` does: load, train, measure, leave a model folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.shards import Content
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.tokenreader import TokenShards
from corpusmill.pipeline.tokenshards import SHARDS_FILE
from corpusmill.train.bits import Bits, measure, token_bytes, token_nats
from corpusmill.train.checkpoint import save_model
from corpusmill.train.device import deterministic, pick_device
from corpusmill.train.loader import WindowLoader, evaluation_batches, to_device
from corpusmill.train.loop import FitResult, StepLoss, fit
from corpusmill.train.model import Llama, initialise
from corpusmill.train.packed import PackedLoader
from corpusmill.train.packing import IGNORED
from corpusmill.train.template import template_files
from corpusmill.train.tokenizer_file import read_tokenizer

if TYPE_CHECKING:
    from corpusmill.train.pretrain import PretrainConfig

#: Windows of a forward pass that measures: a constant, as sums in another order differ in their last bits.
EVALUATION_BATCH = 16


def pretrain(config: "PretrainConfig", run: str, identity: str, progress: Progress) -> Output:
    """Trains in the working folder `pretrain/checkpoints/<identity>`; the output names the finished model's files there."""
    work = Path(run) / "pretrain" / "checkpoints" / identity[:16]
    tokenizer, sha256 = read_tokenizer(Path(run) / "tokenizer" / "tokenizer.json")
    train = TokenShards(Path(run) / "tokens" / "train", tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
    validation = _validation(Path(run) / "tokens" / "validation", sha256)
    model = Llama(config.model.architecture(train.description.vocabulary_size)).to(pick_device(config.device))
    initialise(model, config.seed)
    job = _Job(config, train, validation, token_bytes(tokenizer))
    result = fit(
        model, job.objective, config.loop, state=work / "state", log=Path(run) / "pretrain" / "logs" / "train.jsonl",
        describe=job.loader.documents, evaluate=job.glance if validation else None, evaluate_every=config.evaluate_every,
        progress=progress, title="pretrain",
    )  # fmt: skip
    bits = job.measure_all(model) if validation else None
    save_model(model, work / "model", {"tokenizer.json": tokenizer, **template_files(config.model.context, end_token=END_OF_TEXT)})
    files: dict[str, Content] = {f"model/{path.name}": path for path in sorted((work / "model").iterdir())}
    files["metrics.json"] = json.dumps(_metrics(model, result, len(train), bits), indent=2).encode() + b"\n"
    warnings = [] if validation else ["no validation tokens, so bits per byte were not measured"]
    return Output(files, rows_in=result.tokens, kept=result.tokens, counts={"skipped_steps": result.skipped}, warnings=warnings)


def _validation(folder: Path, sha256: str) -> TokenShards | None:
    """The validation tokens; None where the run has held none out."""
    if not (folder / SHARDS_FILE).is_file():
        return None
    shards = TokenShards(folder, tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
    return shards if len(shards) else None


class _Job:
    """The batches of a pre-training, as the loop asks for them."""

    def __init__(self, config: "PretrainConfig", train: TokenShards, validation: TokenShards | None, sizes: Any):
        self.config, self.train, self.validation, self.sizes = config, train, validation, sizes
        kind = PackedLoader if config.packing == "documents" else WindowLoader
        self.loader = kind(train, config.model.context, config.batch, config.seed, config.document_mask)

    def objective(self, model: Llama, step: int) -> Iterator[StepLoss]:
        size = self.config.micro_batch or self.config.batch
        for begin in range(0, self.config.batch, size):
            batch = self.loader.load(step, begin, min(begin + size, self.config.batch))
            ids, targets, segments = to_device(batch, model.device)
            yield StepLoss(token_nats(model, ids, targets, segments).sum(), int((batch[1] != IGNORED).sum()))

    def glance(self, model: Llama) -> dict[str, float]:
        return {"validation_bits_per_byte": self._measure(model, self.config.evaluate_windows).per_byte}

    def measure_all(self, model: Llama) -> Bits:
        with deterministic(self.config.loop.threads):
            return self._measure(model, None)

    def _measure(self, model: Llama, windows: int | None) -> Bits:
        if self.validation is None:
            raise InputError("there are no validation tokens.")
        batches = evaluation_batches(self.validation, self.config.model.context, EVALUATION_BATCH, self.config.document_mask, windows)
        return measure(model, batches, self.sizes)


def _metrics(model: Llama, result: FitResult, corpus: int, bits: Bits | None) -> dict[str, Any]:
    """What `metrics.json` says: no times, so equal runs have equal files."""
    return {
        "parameters": model.arch.parameters(),
        "steps": result.steps,
        "tokens": result.tokens,
        "epochs": result.tokens / corpus,
        "loss": result.loss,
        "skipped": result.skipped,
        "validation": bits and {
            "bits_per_byte": bits.per_byte,
            "nats_per_token": bits.nats_per_token,
            "tokens": bits.tokens,
            "utf8_bytes": bits.bytes,
        },
    }  # fmt: skip
