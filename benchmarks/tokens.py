"""Compares text to token shards on one core with tokenizers, tiktoken and datatrove, with the same tokenizer and text in the same run.

    python benchmarks/tokens.py documents.parquet more.jsonl page.txt [--vocabulary 32768] [--pattern gpt2] [--rounds 3]

The tokenizer is trained on the first fifth of the documents; the others are encoded, so the text is held out. corpusmill does everything
from Parquet to shards: reading, encoding, splitting, shuffling, hashing, the index and a report row for each document. datatrove's
DocumentTokenizer goes from Parquet to shuffled shards as well; tokenizers and tiktoken only make lists of ids from texts in memory.
Each runs in a process of its own on one core; seconds are processor time, the best of the rounds, after a warm-up on a few
documents. At the end the ids of all are compared, document by document.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.pipeline.engine import InlineEngine, peak_memory_mb
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.shards import publish
from corpusmill.pipeline.special_tokens import END_OF_TEXT
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.tokenize.patterns import PATTERNS
from corpusmill.tokenize.tokenizer_stage import TokenizerStage
from corpusmill.tokenize.tokens_stage import TokensStage

PARAGRAPHS = 20  # bytes of a plain text file that make one document
SHARD_MB = 32  # bytes of text in a shard of documents


def read_texts(paths: list[str]) -> list[str]:
    """Reads the texts of Parquet and JSONL files (column `text`); splits a plain text into documents of a few paragraphs."""
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
    """Writes the texts as a finished `ingest` stage."""
    storage = run.child("ingest")
    manifest = Manifest(storage)
    keys = []
    for number, (first, part) in enumerate(shards_of(texts)):
        columns = {name: [None] * len(part) for name in DOCUMENTS.names}
        columns |= {
            "id": [document_id(str(first + place), text.encode()) for place, text in enumerate(part)],
            "source": ["benchmark"] * len(part),
            "offset": list(range(first, first + len(part))),
            "text": part,
        }
        table = pa.table({name: pa.array(columns[name], DOCUMENTS.field(name).type) for name in DOCUMENTS.names}, schema=DOCUMENTS)
        keys.append(f"part-{number:05d}")
        output = publish(storage, f"data/{keys[-1]}.parquet", table)
        manifest.append(TaskRow(keys[-1], "benchmark", [], "", "", len(part), len(part), 0, 0, [output]))
    manifest.finish(keys)


def shards_of(texts: list[str]) -> list[tuple[int, list[str]]]:
    found, first, size = [], 0, 0
    for number, text in enumerate(texts):
        size += len(text)
        if size > SHARD_MB * 1_000_000:
            found.append((first, texts[first : number + 1]))
            first, size = number + 1, 0
    return [*found, (first, texts[first:])] if first < len(texts) else found


def execute(run: Storage, stage: Stage) -> None:
    StageRun(stage, run, dict.fromkeys(("ingest", "tokenizer", "tokens")), [], InlineEngine(), Progress(False)).execute()


def prepare(folder: str, texts: list[str], vocabulary: int, pattern: str) -> None:
    """Makes a run `train` with a fifth of the texts and a tokenizer, and runs `run` and `few` with it and the others, or 20 of them."""
    fifth = len(texts) // 5
    training = Storage(f"{folder}/train")
    publish_documents(training, texts[:fifth])
    execute(training, TokenizerStage(TokenizerStage.Config(vocab_size=vocabulary, pattern=pattern)))
    for name, part in (("run", texts[fifth:]), ("few", texts[fifth : fifth + 20])):
        publish_documents(Storage(f"{folder}/{name}"), part)
        shutil.copytree(f"{folder}/train/tokenizer", f"{folder}/{name}/tokenizer")


def stored_texts(folder: str) -> list[str]:
    return [text for path in sorted(Path(folder, "ingest/data").glob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]


def ours(folder: str, pattern: str) -> Callable[[], object]:
    def work() -> None:
        run = Storage(folder)
        run.remove_folder("tokens")
        execute(run, TokensStage(TokensStage.Config()))

    return work


def with_tiktoken(folder: str, pattern: str) -> Callable[[], object]:
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(f"{folder}/tokenizer/ranks.tiktoken")
    encoding, texts = Encoding("ours", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens={}), stored_texts(folder)
    return lambda: [encoding.encode_ordinary(text) for text in texts]


def with_tokenizers(folder: str, pattern: str) -> Callable[[], object]:
    from tokenizers import Tokenizer

    tokenizer, texts = Tokenizer.from_file(f"{folder}/tokenizer/tokenizer.json"), stored_texts(folder)
    tokenizer.encode_special_tokens = True
    return lambda: tokenizer.encode_batch(texts, add_special_tokens=False)


def with_datatrove(folder: str, pattern: str) -> Callable[[], object]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from loguru import logger

    def work() -> None:
        logger.disable("datatrove")
        place = f"{folder}/datatrove"
        shutil.rmtree(place, ignore_errors=True)
        reader = ParquetReader(f"{folder}/ingest/data", read_metadata=False)
        tokenizer = f"{folder}/tokenizer/tokenizer.json"
        writer = DocumentTokenizer(f"{place}/out", tokenizer, local_working_dir=f"{place}/work", eos_token=END_OF_TEXT, seed=0)
        LocalPipelineExecutor([reader, writer], logging_dir=f"{place}/logs", skip_completed=False).run()

    return work


CONTENDERS = {
    "ours, Parquet to shards": ours,
    "tiktoken encode_ordinary": with_tiktoken,
    "tokenizers encode_batch": with_tokenizers,
    "datatrove DocumentTokenizer": with_datatrove,
}


def contend(name: str, folder: str, pattern: str, rounds: int) -> None:
    """Measures one side in this process: prints the best processor seconds and peak memory as JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    CONTENDERS[name](f"{folder}/few", pattern)()
    work = CONTENDERS[name](f"{folder}/run", pattern)
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    print(json.dumps({"seconds": min(times), "peak_mb": peak_memory_mb()}))


def check_equal(folder: str, pattern: str) -> int:
    """Checks that every document's ids in the shards, and tiktoken's, are those of `tokenizers`; returns the number of documents."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer/tokenizer.json")
    tokenizer.encode_special_tokens = True
    wanted = {}
    for path in sorted(Path(folder, "ingest/data").glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        encodings = tokenizer.encode_batch(table["text"].to_pylist(), add_special_tokens=False)
        wanted |= dict(zip(table["id"].to_pylist(), (encoding.ids for encoding in encodings)))
    theirs = with_tiktoken(folder, pattern)()
    if list(theirs) != list(wanted.values()):  # type: ignore[call-overload]
        raise SystemExit("tiktoken and tokenizers differ: the comparison means nothing")
    compared = 0
    for split in ("train", "validation"):
        shards = TokenShards(f"{folder}/tokens/{split}")
        for number in range(len(shards.shards)):
            tokens, index = shards.tokens(number), shards.index(number)
            for id_, first, count in zip(*(index[name].to_pylist() for name in ("id", "first", "tokens"))):
                if tokens[first : first + count - 1].tolist() != wanted[id_]:
                    raise SystemExit(f"document {id_} has other ids in the shards than in tokenizers: the comparison means nothing")
                compared += 1
    if compared != len(wanted):
        raise SystemExit(f"{len(wanted)} documents were encoded, and the shards hold {compared}")
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--pattern", choices=sorted(PATTERNS), default="gpt2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=sorted(CONTENDERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contend(arguments.contender, arguments.files[0], arguments.pattern, arguments.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        texts = read_texts(arguments.files)
        prepare(folder, texts, arguments.vocabulary, arguments.pattern)
        held_out = stored_texts(f"{folder}/run")
        megabytes = sum(len(text.encode()) for text in held_out) / 1e6
        print(f"{len(held_out):,} documents, {megabytes:,.1f} MB, vocabulary {arguments.vocabulary:,}, {arguments.pattern}", flush=True)
        compare(folder, megabytes, arguments)


def compare(folder: str, megabytes: float, arguments: Any) -> None:
    single = {**os.environ, "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    options = ["--pattern", arguments.pattern, "--rounds", str(arguments.rounds)]
    mine = 0.0
    for name in CONTENDERS:
        command = [sys.executable, __file__, folder, *options, "--contender", name]
        found = json.loads(subprocess.run(command, env=single, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        seconds = found["seconds"]
        mine = mine or seconds
        speed = f"{megabytes / seconds:7.1f} MB/s   ours is {seconds / mine:5.2f} times as fast"
        print(f"{name:32} {speed}   peak memory {found['peak_mb']:,} MB", flush=True)
    compared = check_equal(f"{folder}/run", arguments.pattern)
    print(f"ids of tokenizers, tiktoken and the shards are equal in all {compared:,} documents")


if __name__ == "__main__":
    main()
