"""Compares the step `transformer` with transformers' own pipeline and FineWeb-Edu's script: one core, one model, the same documents.

    python benchmarks/transformer_step.py DOCUMENTS.parquet [--limit 500] [--layers 2] [--width 128] [--model FOLDER]

The model is BERT with random weights of the given shape and a tokenizer trained on the documents, unless a folder is given. Prints
CPU time, speed, the share of padding among computed tokens, and the largest difference of a score from the pipeline's without batches.
"""

import os

os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # read when libraries are imported

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from corpusmill.filters.step import DocumentBatch, build_steps, resolve_step
from corpusmill.filters.transformer_model import encode

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def build_model(folder: Path, texts: list[str], layers: int, width: int) -> None:
    """Builds a regression model as FineWeb-Edu's, with 512 positions."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=16_000, show_progress=False, special_tokens=SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(width // 64, 1),
        intermediate_size=4 * width, num_labels=1, problem_type="regression",
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)


def timed(function: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Returns CPU seconds of the better of two runs, and the result."""
    seconds = []
    for _ in range(2):
        began = time.process_time()
        found = function()
        seconds.append(time.process_time() - began)
    return min(seconds), found


def our_step(model: str) -> Any:
    (step,) = build_steps([resolve_step({"transformer": {"model": model, "device": "cpu"}})])
    step.step.setup()
    return step.step


def by_pipeline(model: str, texts: list[str], batch: int) -> Callable[[], list[float]]:
    classify = pipeline("text-classification", model=model, device="cpu")
    return lambda: [item["score"] for item in classify(texts, truncation=True, batch_size=batch)]


def by_script(model: str, texts: list[str], batch: int = 256) -> Callable[[], list[float]]:
    """Does the work of run_edu_bert.py on a batch of `datasets.map` (in bfloat16 there)."""
    tokenizer, opened = AutoTokenizer.from_pretrained(model), AutoModelForSequenceClassification.from_pretrained(model)

    @torch.no_grad()
    def score() -> list[float]:
        scores: list[float] = []
        for start in range(0, len(texts), batch):
            inputs = tokenizer(texts[start : start + batch], return_tensors="pt", padding="longest", truncation=True)
            scores += opened(**inputs).logits.squeeze(-1).float().tolist()
        return scores

    return score


def padding(tokens: np.ndarray, batch: int) -> float:
    """Returns the share of padding for batches in the order of the documents, padded to their longest."""
    parts = [tokens[start : start + batch] for start in range(0, len(tokens), batch)]
    return 1 - tokens.sum() / sum(part.max() * len(part) for part in parts)


def compare(model: str, texts: list[str]) -> None:
    torch.set_num_threads(1)
    column, step = pa.array(texts, pa.large_string()), our_step(model)
    tokens = encode(step.classifier.tokenizer, column, step.longest, windows=False).tokens
    kilobytes = sum(len(text.encode()) for text in texts) / 1e3
    shape = f"{step.classifier.model.num_parameters() / 1e6:.1f} million parameters"
    print(f"{len(texts):,} documents, {kilobytes:,.0f} kB, {tokens.sum():,} tokens of them counted, {shape}, one core\n")
    print(f"{'':28} {'CPU s':>7} {'documents/s':>12} {'tokens/s':>9} {'ratio':>6} {'padding':>8} {'difference':>11}")

    def ours() -> list[float]:
        return list(step.measure(DocumentBatch(pa.table({}), column, "words")).columns["transformer"])

    ways = {"corpusmill": (ours, 0.0)}  # each text by itself
    for batch in (1, 8, 32):
        ways[f"pipeline, batch_size={batch}"] = (by_pipeline(model, texts, batch), padding(tokens, batch))
    ways["FineWeb-Edu's script, float32"] = (by_script(model, texts), padding(tokens, 256))
    measured = {name: timed(function) for name, (function, _) in ways.items()}
    plain = measured["pipeline, batch_size=1"][1]
    for name, (seconds, scores) in measured.items():
        ratio, difference = seconds / measured["corpusmill"][0], np.abs(np.subtract(scores, plain)).max()
        speeds = f"{len(texts) / seconds:12,.1f} {tokens.sum() / seconds:9,.0f}"
        print(f"{name:28} {seconds:7.2f} {speeds} {ratio:6.2f} {ways[name][1]:8.1%} {difference:11.1e}")
    print("\nratio: CPU time over corpusmill's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", help="Parquet with a column text")
    parser.add_argument("--limit", type=int, default=500, metavar="N", help="documents, spread evenly over all")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--model", help="folder of a regression model")
    options = parser.parse_args()
    texts = pa.concat_tables([pq.read_table(path, columns=["text"]) for path in options.documents])["text"].to_pylist()
    texts = texts[:: max(len(texts) // options.limit, 1)][: options.limit]
    with tempfile.TemporaryDirectory() as folder:
        if not options.model:
            build_model(Path(folder), texts, options.layers, options.width)
        compare(options.model or folder, texts)


if __name__ == "__main__":
    main()
