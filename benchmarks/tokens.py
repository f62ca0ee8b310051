"""Text to token shards on one core: ours against tokenizers, tiktoken and datatrove, with the same tokenizer and text in the same run.

    python benchmarks/tokens.py documents.parquet more.jsonl page.txt [--vocabulary 32768] [--rounds 3]

Ours is everything from Parquet to shards: reading, encoding, splitting, shuffling, hashing, the index and a report row for each document.
datatrove's DocumentTokenizer goes from Parquet to shuffled shards as well; tokenizers and tiktoken only make lists of ids from texts
that are in memory already. The ids of all are compared before anything is timed. Seconds are of processor time, the best of the rounds.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.engine import InlineEngine, peak_memory_mb
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.progress import Progress
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.tokenshards import TokenShards
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage

PATTERN = "gpt2"
PARAGRAPHS = 20  # of a plain text file that make one document


def read_texts(paths: list[str]) -> list[str]:
    """The texts of Parquet and JSONL files (column `text`); of a plain text, documents of a few paragraphs."""
    texts: list[str] = []
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix == ".jsonl":
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines() if line.strip()]
        else:
            lines = path.read_text().splitlines(keepends=True)
            texts += ["".join(lines[start : start + PARAGRAPHS]) for start in range(0, len(lines), PARAGRAPHS)]
    return [text for text in texts if text]


def publish_documents(run: Storage, texts: list[str]) -> None:
    """The texts as a finished `ingest` stage of one shard."""
    columns = {name: [None] * len(texts) for name in DOCUMENTS.names}
    columns |= {
        "id": [document_id(str(number), text.encode()) for number, text in enumerate(texts)],
        "source": ["benchmark"] * len(texts),
        "offset": list(range(len(texts))),
        "text": texts,
    }
    table = pa.table({name: pa.array(columns[name], DOCUMENTS.field(name).type) for name in DOCUMENTS.names}, schema=DOCUMENTS)
    storage = run.child("ingest")
    output = publish(storage, "data/part-00000.parquet", table)
    manifest = Manifest(storage)
    manifest.append(TaskRow("part-00000", "benchmark", [], "", "", len(texts), len(texts), 0, 0, [output]))
    manifest.finish(["part-00000"])


def execute(run: Storage, stage: Stage) -> None:
    StageRun(stage, run, dict.fromkeys(("ingest", "tokenizer", "tokens")), [], InlineEngine(), Progress(False)).execute()


def ours(run: Storage) -> None:
    run.remove_folder("tokens")
    execute(run, TokensStage(TokensStage.Config()))


def datatrove(run: Storage, folder: str) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    logger.disable("datatrove")
    shutil.rmtree(folder, ignore_errors=True)
    reader = ParquetReader(run.path("ingest/data"), read_metadata=False)
    writer = DocumentTokenizer(
        f"{folder}/out", run.path("tokenizer/tokenizer.json"), local_working_dir=f"{folder}/work", eos_token=END_OF_TEXT, seed=0
    )
    LocalPipelineExecutor([reader, writer], logging_dir=f"{folder}/logs", skip_completed=False).run()


def check_equal(run: Storage, texts: list[str], encode: Callable[[str], list[int]], tokenizer: Any) -> None:
    """All three must give the same ids, and the shards must hold them."""
    wanted = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    if [encode(text) for text in texts] != wanted:
        raise SystemExit("tiktoken and tokenizers differ: the comparison means nothing")
    total = sum(TokenShards(run.path(f"tokens/{split}")).total for split in ("train", "validation"))
    if total != sum(map(len, wanted)) + len(texts):
        raise SystemExit("the shards do not hold the tokens that tokenizers gives: the comparison means nothing")


def best(rounds: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = read_texts(arguments.files)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        run = Storage(f"{folder}/run")
        publish_documents(run, texts)
        stage = TokenizerStage(TokenizerStage.Config(vocabulary_size=arguments.vocabulary, pattern=PATTERN))
        print(f"{len(texts):,} documents, {megabytes:,.1f} MB, vocabulary {arguments.vocabulary:,}, {PATTERN}")
        print(f"tokenizer stage: {megabytes / best(1, lambda: execute(run, stage)):.1f} MB/s")
        compare(run, texts, megabytes, arguments.rounds, f"{folder}/datatrove")


def compare(run: Storage, texts: list[str], megabytes: float, rounds: int, folder: str) -> None:
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(run.path("tokenizer/tokenizer.json"))
    tokenizer.encode_special_tokens = True
    encoding = Encoding(
        "ours", pat_str=PATTERNS[PATTERN], mergeable_ranks=load_tiktoken_bpe(run.path("tokenizer/ranks.tiktoken")), special_tokens={}
    )
    seconds = {"ours, Parquet to shards": best(rounds, lambda: ours(run))}
    peak = peak_memory_mb()
    check_equal(run, texts, encoding.encode_ordinary, tokenizer)
    seconds["tiktoken encode_ordinary"] = best(rounds, lambda: [encoding.encode_ordinary(text) for text in texts])
    seconds["tokenizers encode_batch"] = best(rounds, lambda: tokenizer.encode_batch(texts, add_special_tokens=False))
    seconds["datatrove DocumentTokenizer"] = best(rounds, lambda: datatrove(run, folder))
    mine = seconds["ours, Parquet to shards"]
    for name, taken in seconds.items():
        print(f"{name:32} {megabytes / taken:7.1f} MB/s   ours is {taken / mine:5.2f} times as fast")
    print(f"peak memory up to the end of ours: {peak:,} MB (texts of this program included)")


if __name__ == "__main__":
    main()
