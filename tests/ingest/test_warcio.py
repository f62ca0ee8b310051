"""Compares every record of every real file with warcio: types, bytes of blocks and payloads, and decoded bodies."""

from collections import Counter
from pathlib import Path

import pytest
from warc_peers import Tally, compare_bodies, ours, real_files, theirs
from warcio.exceptions import ArchiveLoadFailed

from corpusmill.ingest.archive_walk import Gap

ONE_STREAM = "all records lie in one gzip member, which warcio refuses to read"
#: Where warcio and corpusmill differ: the reason, corpusmill's result (types and gaps), and whether warcio raises.
UNDERSTOOD: dict[str, tuple[str, dict[str, int], bool]] = {
    "broken.warc": (
        "its last Content-Length is false; warcio raises at what lies behind the bytes that it claims, here that is a gap",
        {"warcinfo": 1, "request": 2, "metadata": 1, "response": 2, "corrupt": 1}, True,
    ),
    "redirect.warc": ("its last record is cut off within its block; warcio gives what is there", {"warcinfo": 1, "truncated": 1}, False),
    "bad.arc": (
        "the lengths -1 and abc are no lengths; warcio takes them for 0",
        {"response": 1, "corrupt": 2}, False,
    ),
    "example-space-in-url.arc": (
        "its line ends were changed to LF, so its record ends 12 bytes before its length says; warcio gives what is there",
        {"arc_header": 1, "truncated": 1}, False,
    ),
    "example-bad.warc.gz.bad": (ONE_STREAM, {"warcinfo": 1, "response": 2, "request": 2, "revisit": 1}, True),
    "example-bad-non-chunked.warc.gz": (ONE_STREAM, {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, True),
    "example-wrong-chunks.warc.gz": (ONE_STREAM, {"response": 1, "request": 1}, True),
}  # fmt: skip


def test_records_payloads_and_bodies_of_real_files_equal_warcio(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = bodies = 0
    for path in real_files(shared_data):
        if path.name in UNDERSTOOD:
            continue
        tally, parts = ours(path)
        with open(path, "rb") as file:
            assert tally == theirs(file), path
        bodies += compare_bodies(path, parts)
        files += 1
    assert files >= 70 and bodies >= 600


def test_differences_to_warcio_are_the_ones_understood(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for path in real_files(shared_data):
        if path.name not in UNDERSTOOD:
            continue
        reason, expected, raises = UNDERSTOOD[path.name]
        tally, parts = ours(path)
        found = tally.types + Counter(part.kind for part in parts if isinstance(part, Gap))
        assert found == expected, (path, reason)
        their: Tally | None = None
        with open(path, "rb") as file:
            if raises:
                with pytest.raises(ArchiveLoadFailed):
                    theirs(file)
            else:
                their = theirs(file)
        assert tally != their, path
        seen.add(path.name)
    assert seen == set(UNDERSTOOD)
