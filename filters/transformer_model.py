"""A sequence classifier of the package transformers: its loading, its tokenizer, and its outputs for sequences of tokens."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from corpusmill.pipeline.errors import ConfigError, CorpusmillError

# ---- Batches by length. The shape of a text's batch depends on its own length and the options, never on other texts
#
# The last bits of a sum depend on the shape of the multiplied matrices, because libraries choose the order of additions by it; on some
# processors also on the row in the matrix. So on a CPU each sequence is computed by itself. A GPU needs batches: each length is padded to
# one of a few, and a batch is filled up with rows whose results are ignored, so all texts of a length are computed in one shape.


@dataclass(frozen=True)
class Shaped:
    """A batch: sequences that are computed together. `members` fill the first of `rows` rows, each of `length` tokens."""

    members: npt.NDArray[np.int64]
    rows: int
    length: int


def padded_lengths(tokens: npt.NDArray[np.int64], longest: int) -> npt.NDArray[np.int64]:
    """Returns the padded length for each number of tokens (1 to `longest`): one of eight for each doubling, at most `longest`.

    Every sequence shorter than `longest` gets padding, because models may compute differently without any.
    """
    step = 1 << np.maximum(np.floor(np.log2(tokens)).astype(np.int64) - 3, 3)
    return np.minimum((tokens // step + 1) * step, longest)


def even_rows(fit: int) -> int:
    """Returns the number of rows of a batch if `fit` rows fit: a power of two from 4 on, else 1.

    Matrix kernels work on tiles of that many rows. In a batch of five, the last row's sums were seen to differ from the first four rows'.
    """
    return 1 << (fit.bit_length() - 1) if fit >= 4 else 1


def batches(tokens: npt.NDArray[np.int64], longest: int, budget: int | None) -> Iterator[Shaped]:
    """Divides all sequences, given their numbers of tokens, into batches of at most `budget` tokens (or of one row).

    Without a budget each sequence is a batch, without padding. The longest come first, so that a lack of memory shows at once.
    """
    if budget is None:
        for place in np.argsort(-tokens, kind="stable"):
            yield Shaped(np.array([place]), 1, int(tokens[place]))
        return
    padded = padded_lengths(tokens, longest)
    unpadded = tokens == longest
    order = np.lexsort((np.arange(len(tokens)), ~unpadded, -padded))
    keys = padded[order] * 2 + unpadded[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(order) else np.zeros(0, np.int64)
    for start, end in zip(starts, np.r_[starts[1:], len(order)]):
        length = int(padded[order[start]])
        rows = even_rows(budget // length)
        for first in range(start, end, rows):
            yield Shaped(order[first : min(first + rows, end)], rows, length)


# ---- Texts as sequences of tokens, by the model's own tokenizer: cut off at the longest input, or cut into windows.

#: Texts and bytes that are tokenised at once. A tokenizer's record of a text takes a hundred times the memory of the text.
TEXTS_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class EncodedTexts:
    """Sequences of tokens, one after another. A text may have several (windows), or none if it has no tokens."""

    inputs: dict[str, npt.NDArray[np.int32]]  # (tokens,): the model's input for each token, by the argument's name
    offsets: npt.NDArray[np.int64]  # (sequences + 1,): where each sequence begins in the inputs
    document: npt.NDArray[np.int64]  # (sequences,), ascending: the number of each sequence's text

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """(sequences,): the number of tokens of each, special tokens included."""
        return np.diff(self.offsets)


def encode(
    tokenizer: Any, text: pa.Array, longest: int, windows: bool, overlap: int = 0, head_characters: int | None = None
) -> EncodedTexts:
    """Returns sequences of at most `longest` tokens, special ones included: the start of each text, or with `windows` the whole text."""
    if head_characters is not None:
        text = pc.utf8_slice_codeunits(text, 0, head_characters)
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names or name == "input_ids"]
    options: dict[str, Any] = {"truncation": True, "max_length": longest, "return_attention_mask": False, "verbose": False}
    if windows:
        options |= {"return_overflowing_tokens": True, "stride": overlap}
    values: dict[str, list[npt.NDArray[np.int32]]] = {name: [np.zeros(0, np.int32)] for name in names}
    counts, documents = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, end in _chunks(text):
        found = tokenizer(text[start:end].to_pylist(), **options)
        lengths = np.fromiter(map(len, found["input_ids"]), np.int64)
        whose = np.asarray(found["overflow_to_sample_mapping"], np.int64) if windows else np.arange(end - start)
        for name in names:
            values[name].append(np.fromiter(chain.from_iterable(found[name]), np.int32, int(lengths.sum())))
        counts.append(lengths[lengths > 0])
        documents.append(start + whose[lengths > 0])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return EncodedTexts({name: np.concatenate(parts) for name, parts in values.items()}, offsets, np.concatenate(documents))


def _chunks(text: pa.Array) -> Iterator[tuple[int, int]]:
    """Yields the ranges of texts that are tokenised at once."""
    sizes = np.cumsum(pc.binary_length(text).to_numpy(zero_copy_only=False).astype(np.int64)) if len(text) else np.zeros(0, np.int64)
    start = 0
    while start < len(text):
        before = int(sizes[start - 1]) if start else 0
        end = int(np.searchsorted(sizes, before + BYTES_AT_ONCE, side="right"))
        end = min(max(end, start + 1), start + TEXTS_AT_ONCE)
        yield start, end
        start = end


# ---- The model

GPU_BATCH_TOKENS = 16384
UNKNOWN_LENGTH = 10**9  # a tokenizer without a longest input gives a huge number


@dataclass(frozen=True)
class SequenceClassifier:
    """A loaded model. `name`: its name in error messages."""

    name: str
    model: Any
    tokenizer: Any
    device: torch.device

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the outputs."""
        named = self.model.config.id2label
        return tuple(str(named[number]) for number in sorted(named))

    @property
    def positions(self) -> int | None:
        """The most tokens that the model can take; None if its configuration does not say."""
        for name, module in self.model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):  # RoBERTa's start after the padding's
                return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(positions) if positions and positions > 0 else None

    def longest(self, wanted: int | None) -> int:
        """Returns the longest input in tokens: `wanted`, or the limit of tokenizer and model. Raises ConfigError in one sentence."""
        limits = [limit for limit in (self.tokenizer.model_max_length, self.positions) if limit and limit < UNKNOWN_LENGTH]
        if wanted is None:
            if not limits:
                raise ConfigError(f"{self.name}: does not state its longest input; set max_length in the recipe.")
            return int(min(limits))
        if self.positions is not None and wanted > self.positions:
            raise ConfigError(f"{self.name}: takes at most {self.positions:,} tokens, not {wanted:,}.")
        return wanted

    def batch_tokens(self, wanted: int | None) -> int | None:
        """Returns the tokens of a batch; None: each sequence is computed by itself."""
        return wanted or (None if self.device.type == "cpu" else GPU_BATCH_TOKENS)

    def logits(self, sequences: EncodedTexts, longest: int, batch_tokens: int | None) -> npt.NDArray[np.float32]:
        """(sequences, labels): the model's outputs.

        No sequence may be longer than `longest` tokens. Without `batch_tokens` each sequence is computed by itself.
        """
        parts, members = [], []
        try:
            with torch.inference_mode(), one_thread(self.device):
                tokens = sequences.tokens
                for batch in batches(tokens, longest, batch_tokens):
                    found = self.model(**self._inputs(sequences, batch)).logits
                    parts.append(found[: len(batch.members)].float())
                    members.append(batch.members)
                logits = np.zeros((len(sequences.document), len(self.labels)), np.float32)
                if parts:  # one copy at the end, so as not to wait for the GPU after each batch
                    logits[np.concatenate(members)] = torch.cat(parts).cpu().numpy()
        except torch.cuda.OutOfMemoryError as error:
            raise CorpusmillError(
                f"{self.name}: the GPU's memory is too small for batches of {batch_tokens or longest:,} tokens (set batch_tokens lower)."
            ) from error
        return logits

    def _inputs(self, sequences: EncodedTexts, batch: Shaped) -> dict[str, torch.Tensor]:
        rows = np.resize(batch.members, batch.rows)  # the filling rows repeat the members
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
    """Limits torch to one thread on a CPU: sums split over threads have other last bits, and workers share the machine already."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_classifier(folder: Path, name: str, device: str = "auto", dtype: str = "auto") -> SequenceClassifier:
    """Loads the model and the tokenizer of a folder. Reads only safetensors and runs no code of the model.

    Raises ConfigError in one sentence, also if weights of the model are missing, because these would be random.
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
    return SequenceClassifier(name, model.eval().to(where), tokenizer, where)


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
    """Suppresses the messages of transformers while it loads: our errors repeat them in one sentence."""
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
