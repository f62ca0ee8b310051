# mypy: disallow-untyped-defs=False
"""Measures a takedown over three runs, their index and a set of token shards, beside making the runs.

    python benchmarks/takedown.py RUN/ingest/data --documents 1000000 --tokenizer RUN/tokenizer/tokenizer.json --folder /tmp/takedown

The files hold the real text from which the documents are made (`dedup_synthetic.py`). Each run has a third of them; the recipe is Gopher's
rules of quality that made text passes, dedup with an index, and tokens. Every hundredth address is on the list. Prints wall seconds of
making the runs and of the takedown, and checks that no document of the list, and none of its exact texts, is left in documents and tokens.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dedup_documents import read_texts
from dedup_synthetic import read_source

RUNS = ("one", "two", "three")
RECIPE = """ingest: {{task_mb: 16}}
filter: {{steps: [{{gopher_quality: {{}}}}], thresholds: {{gopher_enough_stop_words: off, gopher_below_alpha_threshold: off}}}}
dedup: {{preset: fineweb, alarm: warn, index: {{path: {index}}}}}
tokenizer: {{file: {tokenizer}}}
tokens: {{}}
"""


def corpusmill(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([Path(sys.executable).parent / "corpusmill", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json: runs of one set share it")
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    folder, made = args.folder.absolute(), read_source(read_texts(args.source), args.documents)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(index=folder / "index", tokenizer=args.tokenizer.absolute()))
    third, step = args.documents // len(RUNS), round(1 / args.share)
    for run, name in enumerate(RUNS):
        numbers = np.arange(run * third, (run + 1) * third)
        urls = pc.binary_join_element_wise("https://www.example.org/pages", pa.array(numbers).cast(pa.string()), "/")
        pq.write_table(pa.table({"url": urls, "text": made.texts(numbers)}), folder / f"{name}.parquet", row_group_size=20_000)
    urls = [f"https://www.example.org/pages/{number}" for number in range(0, third * len(RUNS), step)]
    (folder / "urls.txt").write_text("\n".join(urls))
    runs = [str(folder / name) for name in RUNS]
    seconds = [corpusmill("run", str(folder / "recipe.yaml"), f"{run}.parquet", "--output", run) for run in runs]
    for run in runs:
        corpusmill("tokens", "append", str(folder / "set"), run, "--skip-known")
    print(f"making three runs of {third:,} documents: {sum(seconds):.0f} s", flush=True)
    ask = [*runs, str(folder / "set"), "--urls", str(folder / "urls.txt"), "--ticket", "1"]
    print(f"what would be taken down: {corpusmill('takedown', *ask, '--csv'):.0f} s", flush=True)
    print(f"takedown of {len(urls):,} addresses and their copies: {corpusmill('takedown', *ask, '--write'):.0f} s", flush=True)
    left = 0
    for run in runs:
        for kept in Path(run).glob("*/data/*.parquet"):
            left += pc.sum(pc.is_in(pq.read_table(kept, columns=["url"])["url"], pa.array(urls))).as_py() or 0
    print(f"documents of the list that are left: {left}")


if __name__ == "__main__":
    main()
