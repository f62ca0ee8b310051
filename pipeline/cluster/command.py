"""`python -m corpusmill.pipeline.cluster.command up|down`: what `make cluster-up` and `make cluster-down` do."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corpusmill.pipeline.cluster import nodes as cluster
from corpusmill.pipeline.errors import CorpusmillError


def up(folder: Path, nodes: int) -> None:
    here = cluster.up(folder, nodes)
    for node in here.nodes:
        cores = f", cores {', '.join(map(str, node.cores))}" if node.cores else ""
        print(f"{node.name}: process {node.pid}, {node.cpus} CPUs{cores}, metrics at {node.metrics}")
    print(f"The cluster takes jobs (and shows its dashboard) at {here.jobs}; it is written down in {folder / cluster.FILE}.")
    print("A job:     make submit RUN=runs/job INPUT=crawl.warc.gz RECIPE=recipes/demo.yaml")
    variables = " ".join(f"{name}={value}" for name, value in {"RAY_ADDRESS": here.address, **here.environment()}.items())
    print(f"From here: {variables} corpusmill run ...")
    print("Its end:   make cluster-down")


def down(folder: Path) -> None:
    known = cluster.read(folder)
    if known is None:
        print("No cluster is running.")
        return
    print(f"Ended {cluster.down(folder)} processes of the cluster; none is left, and {known.temp} is gone.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m corpusmill.pipeline.cluster.command", description="A Ray cluster on this machine.")
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes")
    parser.add_argument("--folder", type=Path, default=cluster.FOLDER, help="where the cluster is written down")
    given = parser.parse_args(argv)
    try:
        up(given.folder, given.nodes) if given.what == "up" else down(given.folder)
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
