"""A sequence classifier of transformers, loaded with its tokenizer, and its outputs for sequences of tokens."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from corpusmill.filters.transformer.lengths import Shaped, batches, one_by_one
from corpusmill.filters.transformer.sequences import Sequences
from corpusmill.pipeline.errors import ConfigError, CorpusmillError

GPU_BATCH_TOKENS = 16384
UNKNOWN_LENGTH = 10**9  # tokenizers that know no longest input give a huge number


@dataclass(frozen=True)
class Classifier:
    """A loaded model; `name` is what errors call it."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device

    @property
    def labels(self) -> tuple[str, ...]:
        """In the order of the outputs."""
        named = self.model.config.id2label
        return tuple(str(named[number]) for number in sorted(named))

    @property
    def positions(self) -> int | None:
        """The most tokens that the model can take; None: its configuration does not say."""
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):  # RoBERTa counts from behind the padding's
                return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions) if positions and positions > 0 else None

    def longest(self, wanted: int | None) -> int:
        """Tokens of the longest input: `wanted`, or what tokenizer and model take. Raises ConfigError in one sentence."""
        limits = [limit for limit in (self.tokenizer.model_max_length, self.positions) if limit and limit < UNKNOWN_LENGTH]
        if wanted is None:
            if not limits:
                raise ConfigError(f"{self.name}: says nowhere how many tokens it takes, so the recipe has to (max_length).")
            return int(min(limits))
        if self.positions is not None and wanted > self.positions:
            raise ConfigError(f"{self.name}: takes at most {self.positions:,} tokens, not {wanted:,}.")
        return wanted

    def batch_tokens(self, wanted: int | None) -> int | None:
        """Tokens of a batch; None: each sequence is computed by itself."""
        return wanted or (None if self.device.type == "cpu" else GPU_BATCH_TOKENS)

    def logits(self, sequences: Sequences, longest: int, batch_tokens: int | None) -> npt.NDArray[np.float32]:
        """(sequences, labels): what the model gives, none of them longer than `longest` tokens. `batch_tokens`: None computes each
        sequence by itself."""
        parts, members = [], []
        try:
            with torch.inference_mode(), one_thread(self.device):
                tokens = sequences.tokens
                for batch in one_by_one(tokens) if batch_tokens is None else batches(tokens, longest, batch_tokens):
                    found = self.model(**self._inputs(sequences, batch)).logits
                    parts.append(found[: len(batch.members)].float())
                    members.append(batch.members)
                logits = np.zeros((len(sequences.document), len(self.labels)), np.float32)
                if parts:  # one copy at the end: a GPU is not waited for after each batch
                    logits[np.concatenate(members)] = torch.cat(parts).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise CorpusmillError(
                f"{self.name}: the GPU's memory is too small for batches of {batch_tokens or longest:,} tokens (set batch_tokens lower)."
            ) from error
        return logits

    def _inputs(self, sequences: Sequences, batch: Shaped) -> dict[str, torch.Tensor]:
        rows = np.resize(batch.members, batch.rows)  # the rows that nobody reads repeat those that are read
        tokens = sequences.tokens[rows][:, None]
        place = np.arange(batch.length)
        if self.tokenizer.padding_side == "left":
            place = place - (batch.length - tokens)
        mask = (place >= 0) & (place < tokens)
        at = np.where(mask, sequences.offsets[rows][:, None] + place, 0)
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        arrays = {name: np.where(mask, values[at], padding[name]).astype(np.int64) for name, values in sequences.inputs.items()}
        arrays["attention_mask"] = mask.astype(np.int64)
        return {name: torch.from_numpy(values).to(self.device, non_blocking=True) for name, values in arrays.items()}


@contextlib.contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU torch computes with one thread: sums split over threads have other last bits, and workers share the machine already."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_classifier(folder: Path, name: str, device: str = "auto", dtype: str = "auto") -> Classifier:
    """The model and the tokenizer of a folder, from safetensors alone and without code of theirs.

    Raises ConfigError in one sentence, also where weights of the model are missing: they would be random.
    """
    where = _device(device)
    precision = getattr(torch, dtype) if dtype != "auto" else torch.bfloat16 if where.type == "cuda" else torch.float32
    with _quiet_transformers():
        model, tokenizer, missing = _open(folder, name, precision)
    if missing:
        raise ConfigError(
            f"{name}: has no weights for {missing[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}, so it is no trained "
            f"{type(model).__name__}."
        )
    if tokenizer.pad_token_id is None:
        raise ConfigError(f"{name}: its tokenizer has no token for padding, which batches need.")
    return Classifier(name, model.eval().to(where), tokenizer, where)


def _device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, and torch finds no GPU here (`auto` takes the CPU then).")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _open(folder: Path, name: str, precision: torch.dtype) -> tuple[Any, Any, list[str]]:
    import transformers

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model, loading = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, torch_dtype=precision, output_loading_info=True, **options
        )
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0].rstrip(".:")
        raise ConfigError(f"{name}: can't be opened as a sequence classifier of transformers ({type(error).__name__}: {line}).") from error
    return model, tokenizer, sorted(loading["missing_keys"])


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """What transformers says while it loads is in the sentences of our errors, so its own goes unprinted."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
