"""Compares the training of a BPE tokenizer on one core: corpusmill against `tokenizers` and rustbpe, on the same text in the same run.

    python benchmarks/bpe_training.py documents.parquet more.jsonl page.txt [--vocabulary 32768] [--megabytes 1000] [--rounds 1]

corpusmill's side is the tokenizer stage from Parquet to `tokenizer.json` (plan, word counts, their sum, merges), without the evaluation of
the tokenizer. The peers get the texts of the same Parquet files, as their manuals recommend. Each side trains in a process of its own.
Seconds are processor time from the first file to the last merge; imports are not counted, nor is corpusmill's first small training, which
loads the kernels. Peak memory is that of the whole process. Files with less text than `--megabytes` are repeated.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pyarrow as pa
import pyarrow.parquet as pq
from tokens import read_texts

from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.tokenize.patterns import regex_of
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.words import splitter

#: Bytes of text in one shard of documents.
SHARD_BYTES = 50_000_000
DATA = "ingest/data"


class Training(TokenizerStage):
    """The tokenizer stage without the evaluation of its tokenizer."""

    __module__ = TokenizerStage.__module__  # the package whose code goes into the identities of tasks

    def train(self, run: StageRun, words: Any, counted: Any, groups: Any, given: Any) -> Output:
        return Output({"tokenizer.json": self.trained(run, words)})


def ours(folder: str, vocabulary: int, pattern: str) -> list[list[str]]:
    """Returns the merges that the stage learns."""
    run = Storage(folder)
    config = TokenizerStage.Config(vocab_size=vocabulary, pattern=pattern, sample={"mb": 100_000})
    stage_run = StageRun(Training(config), run, dict.fromkeys(("ingest", "tokenizer")), [], InlineEngine(), Progress(False))
    stage_run.execute()
    return list(json.loads(run.read_bytes("tokenizer/tokenizer.json"))["model"]["merges"])


def load_kernels(pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        publish_shards(Storage(folder), [[f"{number} times {number**9} words" for number in range(2000)]])
        ours(folder, 512, pattern)


def texts_of(folder: str) -> Iterator[str]:
    for path in sorted(Path(folder, DATA).glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["text"]):
            yield from batch["text"].to_pylist()


def with_tokenizers(folder: str, vocabulary: int, pattern: str) -> list[list[str]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    cut = [splitter(pattern), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
    )
    tokenizer.train_from_iterator(texts_of(folder), trainer)
    return list(json.loads(tokenizer.to_str())["model"]["merges"])


def with_rustbpe(folder: str, vocabulary: int, pattern: str) -> None:
    import rustbpe

    rustbpe.Tokenizer().train_from_iterator(texts_of(folder), vocab_size=vocabulary - 4, pattern=regex_of(pattern))


TRAINERS = {"ours": ours, "tokenizers": with_tokenizers, "rustbpe": with_rustbpe}


def train_here(name: str, folder: str, vocabulary: int, pattern: str, out: str) -> None:
    """Trains in this process, and writes seconds, peak memory (MB) and merges to `out`."""
    if name == "ours":
        load_kernels(pattern)
    started, wall = time.process_time(), time.perf_counter()
    merges = TRAINERS[name](folder, vocabulary, pattern)
    seconds, waited = time.process_time() - started, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    Path(out).write_text(json.dumps({"seconds": seconds, "wall": waited, "peak": peak, "merges": merges}))


def shards_of(files: list[str], megabytes: float | None) -> Iterator[list[str]]:
    """Yields the texts of the files in shards: once, or repeated up to `megabytes` where that is given."""
    size, waiting, waiting_bytes = 0, [], 0
    while True:
        for file in files:
            for text in read_texts([file]):
                waiting.append(text)
                waiting_bytes += len(text.encode())
                if waiting_bytes >= SHARD_BYTES or (megabytes is not None and size + waiting_bytes >= megabytes * 1e6):
                    yield waiting
                    size, waiting, waiting_bytes = size + waiting_bytes, [], 0
                if megabytes is not None and size >= megabytes * 1e6:
                    return
        if megabytes is None:
            yield waiting
            return


def publish_shards(run: Storage, shards: Iterable[list[str]]) -> float:
    """Publishes the shards as a finished `ingest`; returns their size in MB."""
    storage, tasks, size = run.child("ingest"), [], 0
    manifest = Manifest(storage)
    for number, texts in enumerate(shards):
        columns = {name: [None] * len(texts) for name in DOCUMENTS.names}
        columns |= {
            "id": [document_id(f"{number}/{place}", text.encode()) for place, text in enumerate(texts)],
            "source": ["benchmark"] * len(texts),
            "offset": list(range(len(texts))),
            "text": texts,
        }
        table = pa.table({name: pa.array(columns[name], DOCUMENTS.field(name).type) for name in DOCUMENTS.names}, schema=DOCUMENTS)
        tasks.append(f"part-{number:05d}")
        output = publish(storage, f"data/{tasks[-1]}.parquet", table)
        manifest.append(TaskRow(tasks[-1], "benchmark", [], "", "", len(texts), len(texts), 0, 0, [output]))
        size += sum(len(text.encode()) for text in texts)
    manifest.finish(tasks)
    return size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--pattern", default="gpt2")
    parser.add_argument("--megabytes", type=float)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    parser.add_argument("--here", nargs=3, metavar=("NAME", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        name, folder, out = arguments.here
        train_here(name, folder, arguments.vocabulary, arguments.pattern, out)
        return
    with tempfile.TemporaryDirectory() as folder:
        megabytes = publish_shards(Storage(folder), shards_of(arguments.files, arguments.megabytes))
        print(f"{megabytes:,.1f} MB of text, vocabulary {arguments.vocabulary:,}, {arguments.pattern}", flush=True)
        found = {name: best_of(name, folder, arguments) for name in arguments.trainers}
    for name, row in found.items():
        ratio = f"{found['tokenizers']['seconds'] / row['seconds']:6.2f} times tokenizers" if "tokenizers" in found else ""
        print(f"{name:12} {row['seconds']:8.1f} s {megabytes / row['seconds']:8.1f} MB/s  peak {row['peak']:7,.0f} MB  {ratio}")
    if "ours" in found and "tokenizers" in found:
        pairs = list(zip(found["ours"]["merges"], found["tokenizers"]["merges"]))
        alike = next((place for place, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
        same = found["ours"]["merges"] == found["tokenizers"]["merges"]
        verdict = "the same" if same else f"DIFFERENT from the {alike + 1:,}th on, {pairs[alike : alike + 1]}"
        print(f"merges of ours and tokenizers: {verdict} ({len(found['ours']['merges']):,})")


def best_of(name: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the fastest of the rounds, each in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as own:
        for number in range(arguments.rounds):
            copy = Path(own, str(number))
            (copy / "ingest").parent.mkdir(parents=True)
            (copy / "ingest").symlink_to(Path(folder, "ingest"))
            out = copy / "out.json"
            options = ["--vocabulary", str(arguments.vocabulary), "--pattern", arguments.pattern, "--here", name, str(copy), str(out)]
            subprocess.run([sys.executable, __file__, "none", *options], check=True)
            rows.append(json.loads(out.read_text()))
    return min(rows, key=lambda row: row["seconds"])


if __name__ == "__main__":
    main()
