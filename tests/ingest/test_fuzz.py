"""Cuts and damages every real file at random, with a fixed seed; `make fuzz` continues with new ones."""

from pathlib import Path

import warc_fuzz
from warc_peers import real_files


def test_real_files_cut_and_damaged_lose_nothing_else(shared_data: Path) -> None:
    """Tests cuts, flips, recompressed files, ranges, and the rows of the stage: see `warc_fuzz`."""
    paths = real_files(shared_data)
    assert len(paths) >= 80
    assert warc_fuzz.run(paths, seed=3, rounds=3) > len(paths)
