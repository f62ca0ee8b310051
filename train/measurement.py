"""What one model of a run scores: bits per byte of held-out text, held-out preferences, and sampled texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenreader import TokenShards
from corpusmill.pipeline.tokenshards import SHARDS_FILE
from corpusmill.train.bits import token_bytes
from corpusmill.train.checkpoint import load_model
from corpusmill.train.device import deterministic, pick_device
from corpusmill.train.intervals import bootstrap_ratio, wilson
from corpusmill.train.loader import evaluation_batches, to_device
from corpusmill.train.logprobs import collate, sum_logps
from corpusmill.train.parallel.computation import Local
from corpusmill.train.preference_data import pairs_from_table, prepare_pair
from corpusmill.train.samples import sample
from corpusmill.train.template import load_chat
from corpusmill.train.tokenizer_file import read_tokenizer

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Measurement:
    """One model folder of a run and what is measured on it."""

    def __init__(self, config: "EvaluateConfig", run: Storage, stage: str, document_mask: bool):
        self.config, self.stage, self.document_mask = config, stage, document_mask
        self.folder = Path(run.path(f"{stage}/model"))
        self.model = load_model(self.folder, pick_device(config.device)).eval()
        self.encoder = load_chat(Storage(str(self.folder)))

    def bits_per_byte(self, folder: Storage) -> dict[str, Any] | None:
        """Over all validation tokens, with an interval from resampled documents; None where the run holds none out."""
        tokenizer, sha256 = read_tokenizer(self.folder / "tokenizer.json")
        if not folder.exists(SHARDS_FILE):
            return None
        shards = TokenShards(folder.root, tokenizer_sha256=sha256, end_of_text_id=EOT_ID)
        with deterministic():
            nats, sizes = self.document_sums(shards, token_bytes(tokenizer))
        if not sizes.sum():
            return None
        bits = nats / np.log(2)
        low, high = bootstrap_ratio(bits, sizes, self.config.resamples, self.config.confidence, self.config.seed)
        value = float(bits.sum() / sizes.sum())
        return {"value": value, "low": low, "high": high, "documents": len(sizes), "bytes": int(sizes.sum())}

    @torch.no_grad()
    def document_sums(self, shards: TokenShards, token_sizes: Integers) -> tuple[Floats, Floats]:
        """Nats and bytes of each document's tokens; its END_OF_TEXT counts for neither."""
        starts, nats_of = document_starts(shards), Local(self.model, "fp32").nats
        nats, sizes = np.zeros(len(starts)), np.zeros(len(starts))
        table = np.zeros(max(self.model.arch.vocab_size, len(token_sizes)), np.int64)
        table[: len(token_sizes)] = token_sizes
        place = 0  # of the next target in the row of all tokens
        for batch in evaluation_batches(shards, self.model.arch.context, self.config.batch, self.document_mask):
            ids, targets, segments = to_device(batch, self.model.device)
            flat = targets.flatten().cpu().numpy()
            of_token = nats_of(ids, targets, segments).flatten().double().cpu().numpy()
            document = np.searchsorted(starts, np.arange(place, place + len(flat)), "right") - 1
            counted = table[flat]
            nats += np.bincount(document, np.where(counted > 0, of_token, 0.0), len(starts))
            sizes += np.bincount(document, counted, len(starts))
            place += len(flat)
        return nats, sizes

    @torch.no_grad()
    def preferences(self, folder: Storage, relative: str) -> dict[str, Any] | None:
        """The share of held-out pairs whose chosen completion has the higher log-probability a token."""
        pairs = [pair for pair in pairs_from_table(read_table(folder, relative)) if pair.held_out]
        prepared = [prepare_pair(pair, self.encoder, self.model.arch.context) for pair in pairs]
        kept = [pair for pair in prepared if not pair.failed]
        if not kept:
            return None
        right, by_kind = 0, dict[str, list[int]]()
        with deterministic():
            for begin in range(0, len(kept), self.config.batch):
                some = kept[begin : begin + self.config.batch]
                batch = collate([*(p.chosen for p in some), *(p.rejected for p in some)], self.model.arch.context, self.model.device)
                chosen, rejected = (sum_logps(self.model, batch) / batch.counts).chunk(2)
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
            return [sample(self.model, self.encoder, prompt, kind, self.config) for prompt in prompts for kind in kinds]


def document_starts(shards: TokenShards) -> Integers:
    """The position at which each document begins in the row of all tokens."""
    starts = [shards.starts[n] + shards.index(n)["first"].to_numpy() for n in range(len(shards.shards))]
    return np.concatenate(starts).astype(np.int64) if starts else np.zeros(0, np.int64)
