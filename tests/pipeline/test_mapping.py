"""Tests maps: they hold the file's content as long as an array of it lives, without a descriptor for each."""

import gc
import resource
from pathlib import Path

import numpy as np

from corpusmill.pipeline.token_shards import address_of, map_file


def test_a_part_of_a_map_outlives_the_whole_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))
    part = map_file(str(tmp_path / "a"), np.dtype(np.uint8))[100:]
    (tmp_path / "a").unlink()
    gc.collect()
    assert part.tolist() == list(range(100, 200))


def test_more_maps_than_a_process_may_have_open_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x07\0")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(128, limits[1]), limits[1]))
    try:
        maps = [map_file(str(tmp_path / "a"), np.dtype("<u2")) for _ in range(500)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert sum(int(found[0]) for found in maps) == 3500 and len({address_of(found) for found in maps}) == 500
