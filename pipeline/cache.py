"""Where files are kept between runs: models, lists, downloads."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$CORPUSMILL_CACHE, else ~/.cache/corpusmill."""
    given = os.environ.get("CORPUSMILL_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "corpusmill"
