"""Makes one file of a run a FIFO, a link to /dev/zero, or JSON that is nested 200,000 times, and looks at the run with many commands.

    python tests/helpers/special_files.py RUN SCRATCH [FILE...]

Prints a line for each command that ends with a bug, or with no exit code of its own. A command that hangs hangs this program.
"""

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path

from asking import client_of

from corpusmill import cli
from corpusmill.report.explore.server import ROUTES

FILES = (
    "run.json", "lease.json", "progress.json", "log.jsonl", "metrics.jsonl", "labels.parquet", "ingest/manifest.jsonl",
    "filter/manifest.jsonl", "filter/report/part-00000.parquet", "filter/data/part-00000.parquet", "tokens/plan.json",
    "tokens/train/shards.json", "tokens/train/tokens-00000.bin", "tokens/train/tokens-00000.index.parquet", "pretrain/metrics.json",
    "pretrain/logs/train.jsonl",
)  # fmt: skip
PAGE = "http://host1.test/page-1.html"
LOOKING = (
    "status", "verify", "report", f"why {PAGE}", "sample", "query SELECT~count(*)~FROM~filter_report", f"raw {PAGE}",
    "trace --shard 0 --token 0", "card", "recipe",
)  # fmt: skip


def call(*arguments: str) -> tuple[object, str]:
    """Returns the exit code of a command, and what it said."""
    said, sys.argv = io.StringIO(), ["corpusmill", *arguments]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0, said.getvalue()
    return 0, said.getvalue()


def main(whole: Path, run: Path, *files: str) -> None:
    for file in files or FILES:
        for kind in ("fifo", "zero", "deep"):
            if kind == "deep" and ".json" not in file:
                continue
            shutil.copytree(whole, run)
            path = run / file
            path.unlink(missing_ok=True)
            if kind == "deep":
                path.write_text("[" * 200_000)
            else:
                os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
            for given in LOOKING:
                name, *options = given.split()
                code, said = call(*name.split("_"), str(run), *(option.replace("~", " ") for option in options))
                if "internal error" in said or code not in (0, 1, 2, 3):
                    print(file, kind, name, code, said[-300:].replace("\n", " "))
            if file != "run.json":
                client = client_of(run)
                for name in ROUTES:
                    answer = client.get(f"/api/{name}", params={"key": "filter/0", "column": "words"})
                    if answer.status_code == 500:
                        print(file, kind, f"/api/{name}", answer.text)
            shutil.rmtree(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
