"""Measures seconds and memory of a run's report, in total and by the tables read for it, and the bytes of the page. Writes nothing.

    python benchmarks/report.py RUN [--profile]

The first line is a user's waiting time: libraries loaded, run read, page made. With `--profile` the slowest functions follow.
"""

import argparse
import cProfile
import pstats
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

BEGAN = time.perf_counter()


def timed(name: str, function: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    """Returns `function`, with its seconds added up under its name."""

    def call(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] += time.perf_counter() - began

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--profile", action="store_true", help="the functions that took most time in the first thread")
    given = parser.parse_args()
    from corpusmill.report.page import html
    from corpusmill.report.queries import summary
    from corpusmill.report.query.run import Run

    seconds: dict[str, float] = defaultdict(float)
    for name, value in list(vars(summary).items()):
        ours = callable(value) and getattr(value, "__module__", "").startswith("corpusmill.report.")
        if ours and name.startswith("read_") and name != "read_summary":
            setattr(summary, name, timed(name, value, seconds))
    Run.hold = timed("hold", Run.hold, seconds)  # type: ignore[method-assign]
    profile = cProfile.Profile()
    if given.profile:
        profile.enable()
    began = time.perf_counter()
    read = summary.read_summary(given.run)
    ended = time.perf_counter()
    page = html.render(read).encode("utf-8", "replace")
    whole = time.perf_counter()
    profile.disable()
    rows = {stage: d.rows for stage, d in read.decisions.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    processor = time.process_time()
    print(f"{given.run}: {whole - BEGAN:.1f} s ({processor:.1f} s of processors), page {len(page) / 1e6:.2f} MB, peak {peak:,.0f} MB")
    print("report rows: " + ", ".join(f"{stage} {count:,}" for stage, count in rows.items()))
    print(f"  {began - BEGAN:6.2f} s loading libraries")
    for name, spent in sorted(seconds.items(), key=lambda pair: -pair[1]):
        print(f"  {spent:6.2f} s {name}")
    print(f"  {ended - began - sum(seconds.values()):6.2f} s what else is read")
    print(f"  {whole - ended:6.2f} s making the page")
    if given.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
