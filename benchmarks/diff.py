"""Measures seconds, processor time and memory of the commands that show documents: inspect, why, sample, and diff of two runs.

    python benchmarks/large_run.py RUN_A LARGE_A; python benchmarks/large_run.py RUN_B LARGE_B
    python benchmarks/diff.py LARGE_A LARGE_B [--rule gopher_short_doc] [--rounds 3]

Each command is a process of its own, as in a terminal; the best of the rounds counts. The two runs are finished up to `dedup` at least.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Cost of one command: wall seconds, processor seconds, and peak MiB."""

    wall: float
    processor: float
    peak: int


#: Runs the command and prints its cost after its output.
MEASURED = """
import resource, sys
from corpusmill.cli import main
sys.argv = ["corpusmill", *sys.argv[1:]]
try:
    main()
finally:
    sys.stdout.flush()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, file=sys.stderr)
"""


def measure(command: list[str]) -> tuple[Cost, str]:
    """Runs a command; returns its cost and its output. Raises CalledProcessError where it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, processor, int(done.stderr.split()[-1])), done.stdout


def commands(a: str, b: str, rule: str) -> dict[str, list[str]]:
    first = measure(["inspect", a, "--rule", rule, "--limit", "1", "--offset", "1000", "--json"])[1]
    document = json.loads(first)
    return {
        "inspect, one rule alone, sorted": ["inspect", a, "--rule", rule, "--alone", "--order", "chars_in", "--descending"],
        "inspect, one language and a bound": ["inspect", a, "--language", "en", "--min", "chars_in=10000", "--columns", "id,url,chars_in"],
        "sample, 20 of a rule": ["sample", a, "--rule", rule],
        "sample, 20 near its threshold": ["sample", a, "--rule", rule, "--near"],
        "why, by id": ["why", a, document["id"]],
        "why, by URL": ["why", a, document["url"]],
        "diff, whole runs": ["diff", a, b],
        "diff, one stage": ["diff", a, b, "--stage", "filter"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--rule", default="gopher_short_doc")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, command in commands(options.a, options.b, options.rule).items():
        costs = [measure(command)[0] for _ in range(options.rounds)]
        best = min(costs, key=lambda cost: cost.wall)
        processor = min(cost.processor for cost in costs)
        print(f"{name:36} {best.wall:6.1f} s   {processor:6.1f} s of processor   {max(cost.peak for cost in costs):,} MiB", flush=True)


if __name__ == "__main__":
    main()
