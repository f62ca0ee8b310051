"""What one model of a run scores: bits per byte of held-out text, held-out preferences, and sampled texts."""

from typing import TYPE_CHECKING, Any

import torch

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.train.device import deterministic
from corpusmill.train.intervals import wilson
from corpusmill.train.logprobs import collate, sum_logps
from corpusmill.train.parallel.computation import Local
from corpusmill.train.preference_data import pairs_from_table, prepare_pair
from corpusmill.train.samples import write_samples
from corpusmill.train.speaker import load_speaker
from corpusmill.train.tokenizer_file import makers, read_tokenizer
from corpusmill.train.validation import Validation

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig


class Measurement:
    """One model folder of a run and what is measured on it."""

    def __init__(self, config: "EvaluateConfig", run: Storage, stage: str, document_mask: bool):
        self.config, self.run, self.stage, self.document_mask = config, run, stage, document_mask
        self.folder = local_model(run.path(f"{stage}/model"))
        self.speaker = load_speaker(self.folder, config.device)
        self.model, self.encoder = self.speaker.model, self.speaker.encoder

    def bits_per_byte(self, folder: Storage) -> dict[str, Any] | None:
        """Over all validation tokens, with an interval from resampled documents; None where the run holds none out."""
        tokenizer, _ = read_tokenizer(Storage(str(self.folder)))
        validation = Validation.open(folder.root, tokenizer, makers(self.run, tokenizer), self.model.arch.context, self.document_mask)
        if validation is None:
            return None
        with deterministic():
            sums = validation.sums(Local(self.model, "fp32"), self.model.device, batch=self.config.batch)
        score = sums.score(self.config.resamples, self.config.confidence, self.config.seed)
        found = {"value": score.bits_per_byte, "low": score.low, "high": score.high}
        return {**found, "documents": score.documents, "bytes": score.utf8_bytes}

    @torch.no_grad()
    def preferences(self, folder: Storage, relative: str) -> dict[str, Any] | None:
        """The share of held-out pairs whose chosen completion has the higher log-probability a token."""
        pairs = [pair for pair in pairs_from_table(read_table(folder, relative)) if pair.held_out]
        prepared = [prepare_pair(pair, self.encoder, self.model.arch.context) for pair in pairs]
        kept = [pair for pair in prepared if not pair.failed and len(pair.chosen.ids) and len(pair.rejected.ids)]  # KTO's may have one side
        if not kept:
            return None
        right, by_kind = 0, dict[str, list[int]]()
        with deterministic():
            for begin in range(0, len(kept), self.config.batch):
                some = kept[begin : begin + self.config.batch]
                batch = collate([*(p.chosen for p in some), *(p.rejected for p in some)], self.model.arch.context, self.model.device)
                chosen, rejected = sum_logps(self.model, batch).means.chunk(2)
                for pair, better in zip(some, (chosen > rejected).tolist(), strict=True):
                    right += better
                    by_kind.setdefault(pair.pair.kind, []).append(int(better))
        low, high = wilson(right, len(kept), self.config.confidence)
        kinds = {kind: sum(found) / len(found) for kind, found in sorted(by_kind.items())}
        return {"accuracy": right / len(kept), "low": low, "high": high, "pairs": len(kept), "by_kind": kinds}

    def samples(self, prompts: list[dict[str, str]]) -> list[dict[str, Any]]:
        """A continuation of every prompt's text, and (of a tuned model) an answer to every prompt's question."""
        kinds = ("continuation",) if self.stage == "pretrain" else ("continuation", "answer")
        with deterministic():
            written = [write_samples(self.speaker, prompts, kind, self.config) for kind in kinds]
        return [sample for of_prompt in zip(*written) for sample in of_prompt]
