"""A run of the data stages in a second or two, with a filter function that fails on request from outside.

A file named by the function's environment decides its fault, so recipe, code and inputs are the same with and without the
fault: `{"kind": "raise" or "memory" or "wait", "when": "part of a text"}`.
"""

import gzip
import json
from pathlib import Path

from tiny_crawl import make_crawl

VARIABLE = "CORPUSMILL_TEST_FAULT"

FILTER = f'''
import json
import os
import time
from pathlib import Path

import pyarrow.compute as pc

from corpusmill.filters.own import Rule, measures


def go_wrong(texts):
    fault = Path(os.environ.get("{VARIABLE}", "/nowhere"))
    if not fault.exists():
        return
    wanted = json.loads(fault.read_text())
    if not any(wanted["when"] in text for text in texts):
        return
    if wanted["kind"] == "raise":
        raise RuntimeError("the model has no answer")
    if wanted["kind"] == "memory":
        b"x" * (wanted["bytes_a_text"] * len(texts))  # written to, so that it is there
    if wanted["kind"] == "wait":
        fault.with_suffix(".reached").touch()
        while fault.exists():
            time.sleep(0.01)


RULES = [Rule("too_loud", "exclamations", ">", 200), Rule("brief", "chars", "<", 400)]


@measures({{"exclamations": "int64", "chars": "int64"}}, rules=RULES)
def loud(documents):
    go_wrong(documents["text"].to_pylist())
    return {{"exclamations": pc.count_substring(documents["text"], "!"), "chars": pc.utf8_length(documents["text"])}}
'''

RECIPE = """
ingest: {task_mb: 1}
filter:
  steps:
    - python: "own.py:loud"
dedup: {threshold: 0.8}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.1, shard_tokens: 100000}
"""


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Writes the recipe with the function next to it, and the folder of the crawl: a WARC that becomes several tasks, and JSON rows."""
    recipe, crawl = folder / "data.yaml", folder / "crawl"
    crawl.mkdir(parents=True, exist_ok=True)
    make_crawl(crawl)
    packed = crawl / "pydoc.warc.gz"
    (crawl / "pydoc.warc").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    recipe.write_text(RECIPE)
    (folder / "own.py").write_text(FILTER)
    return recipe, crawl


def plant(fault: Path, **wanted: object) -> None:
    fault.write_text(json.dumps(wanted))
