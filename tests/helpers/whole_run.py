"""A run of all stages in seconds: the tiny crawl, a recipe with every kind of task, and models of a few thousand weights."""

import gzip
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from tiny_classifiers import make_classifier
from tiny_crawl import make_crawl

STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokens", "pretrain", "sft", "align", "evaluate")
#: The stages before the tokens; `quality` is a classifier next to the recipe (`write_inputs`).
DATA = """
ingest: {task_mb: 1}
filter:
  steps:
    - language: {keep: [en], threshold: 0.3}
    - gopher_repetition: {}
    - gopher_quality: {}
    - classifier: {model: quality, keep_where: high, keep: 0.9}
  thresholds: {gopher_below_alpha_threshold: 0.5, dup_line_frac: 0.6, gopher_short_doc: 20}
dedup: {}
tokenizer: {vocab_size: 1024}
"""
LATER = """
tokens: {validation_share: 0.1, shard_tokens: 20000}
pretrain:
  model: {layers: 1, width: 16, heads: 2, kv_heads: 1, head_dim: 8, ffn: 32, context: 160}
  batch: 4
  samples: 1
  evaluate_every: 0
  loop: {steps: 40, save_every: 5, warmup: 2}
sft:
  examples: 40
  max_chars: 80
  batch: 2
  evaluate_every: 0
  loop: {steps: 20, save_every: 4, warmup: 2}
align:
  pairs: 60
  max_chars: 80
  batch: 4
  evaluate_every: 0
  loop: {steps: 12, save_every: 3, warmup: 2}
evaluate: {samples: 1, max_tokens: 12}
"""
RECIPE = DATA + LATER


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Writes the recipe with the classifier next to it, and a crawl of several files, so that every stage has several tasks."""
    recipe, crawl = folder / "whole.yaml", folder / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    make_crawl(crawl)
    packed = crawl / "pydoc.warc.gz"
    (crawl / "pydoc.warc").write_bytes(gzip.decompress(packed.read_bytes()))  # uncompressed, it is large enough for several tasks
    packed.unlink()
    recipe.write_text(RECIPE)
    make_classifier(folder / "quality", "quality", {"quality": ["good"]})
    return recipe, crawl


def ids(run: Path) -> dict[str, Counter[str]]:
    """Counts the documents that came into each data stage, by id."""
    stages = [stage for stage in STAGES if any((run / stage).glob("report/*.parquet"))]
    return {stage: Counter(pq.read_table(run / stage / "report", columns=["id"])["id"].to_pylist()) for stage in stages}
