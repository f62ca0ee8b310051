"""Fuzzes real WARCs and ARCs of ../shared, if present, cut and damaged at random: the input is the seed. See tests/helpers/warc_fuzz.py."""

import random
from functools import cache
from pathlib import Path

import warc_fuzz
from fuzzing import scratch
from warc_peers import real_files

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
#: Bytes of the largest file used: each input reads one several times over.
LARGEST = 200_000
LAYOUTS = [f"{name}{kind}" for name in warc_fuzz.COMPRESS for kind in ("", "-frames")]


def seeds() -> list[bytes]:
    assert not SHARED.is_dir() or len(paths()) >= 60
    return [b"one", b"another"]


@cache
def paths() -> list[Path]:
    return [path for path in real_files(SHARED) if path.stat().st_size <= LARGEST] if SHARED.is_dir() else []


@cache
def sample(path: Path) -> warc_fuzz.Sample:
    return warc_fuzz.load(path)


def fuzz(data: bytes) -> None:
    random_ = random.Random(data)
    if paths():
        chosen = sample(random_.choice(paths()))
        if random_.random() < 0.3:
            chosen = warc_fuzz.repacked(chosen, random_.choice(LAYOUTS)) or chosen
        if len(chosen.content) > 1:
            warc_fuzz.fuzz(chosen, random_, 1, scratch())
