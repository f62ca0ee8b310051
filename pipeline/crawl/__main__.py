"""`python -m corpusmill.pipeline.crawl OUT` gets a small real crawl; prints what it is, then its path."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corpusmill.pipeline.crawl.sources import SOURCES, get_crawl
from corpusmill.pipeline.errors import CorpusmillError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m corpusmill.pipeline.crawl", description="Get a small real crawl for a first run.")
    parser.add_argument("folder", metavar="OUT", type=Path, help="where it is kept and found again")
    parser.add_argument("--source", choices=("auto", *SOURCES), default="auto", help="auto takes the first that works")
    parser.add_argument("--crawl", metavar="PATH", help="a crawl that you have: takes the place of all sources")
    given = parser.parse_args(argv)
    try:
        result = get_crawl(given.folder, given.crawl, tuple(SOURCES) if given.source == "auto" else (given.source,))
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    print(result.how, result.path, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
