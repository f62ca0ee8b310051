"""Measures seconds to open a large run (from `large_run.py`) and to answer typical queries, and the peak memory of the whole.

    python benchmarks/query.py RUN [--times 3]

Each query is asked `--times` times. Prints the first answer, which reads the shards' footers, and the fastest, with CPU seconds
next to them, which depend less on the load of the machine.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import corpusmill

QUERIES = {
    "documents by rule": "SELECT unnest(failed) AS rule, count(*) AS n FROM filter_report GROUP BY rule ORDER BY n DESC, rule",
    "lengths, kept and dropped": "SELECT kept, count(*), median(chars_in), avg(chars_in) FROM filter_report GROUP BY kept ORDER BY kept",
    "copies by language (a join)": """SELECT language, count(*), count(*) FILTER (NOT d.kept) FROM filter_report
        JOIN dedup_report d USING (id) GROUP BY language ORDER BY 2 DESC, 1""",
    "URLs with a word": "SELECT url FROM ingest_report WHERE url LIKE '%foreword%' ORDER BY url LIMIT 10",
    "the lowest kept values": "SELECT url, gopher_words FROM filter_report WHERE kept ORDER BY gopher_words, id LIMIT 20",
}


def timed(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Returns seconds, CPU seconds, and the result."""
    started, cpu = time.perf_counter(), time.process_time()
    found = action()
    return time.perf_counter() - started, time.process_time() - cpu, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of ingest, filter and dedup")
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    seconds, cpu, _ = timed(lambda: corpusmill.open_run)  # imports DuckDB and pyarrow
    print(f"import {seconds:.2f} s ({cpu:.2f} s of CPU)")
    seconds, cpu, run = timed(lambda: corpusmill.open_run(arguments.run))
    rows = ", ".join(f"{name} {len(run.table(name)):,}" for name in ("ingest_report", "filter_report", "dedup_report"))
    print(f"open {seconds:.2f} s ({cpu:.2f} s of CPU): {rows}, {len(run.tables['ingest_report'].files):,} shards each")
    for name, query in QUERIES.items():
        times = [timed(lambda query=query: run.sql(query).fetchall())[:2] for _ in range(arguments.times)]
        (first, first_cpu), (best, best_cpu) = times[0], min(times)
        print(f"{name}: {first:.2f} s ({first_cpu:.2f} s of CPU), again {best:.2f} s ({best_cpu:.2f} s of CPU)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
