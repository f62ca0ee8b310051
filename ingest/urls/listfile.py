"""A list as one file: sorted 64-bit hashes that all processes of a machine map into their memory and share.

    magic, length and XXH3-64 of the header   8 + 4 + 8 bytes
    header                                    JSON: sizes, XXH3-64 of what follows, the words
    padding to a multiple of 64
    domains, urls, hosts of the urls          uint64 each, sorted, no two equal

A domain is listed where the XXH3-64 of its UTF-8 bytes is. Of n = 4,558,940 hashes in 2^64, another domain has one
with probability n / 2^64 = 2.5e-13: in a crawl of a billion pages, each of which is looked up twice, one false hit is
expected once in 2,000 crawls. The file takes 36.6 MB, as a Python set of strings the domains take 623 MB a process.
"""

import json
import mmap
import struct
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from corpusmill.ingest.urls.address import TAIL, same_address, same_host, split_url
from corpusmill.ingest.urls.sources import WORDS, Kind, Source, digest_of
from corpusmill.pipeline.cache import alone, cache_folder
from corpusmill.pipeline.config import canonical_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

MAGIC = b"CMURLS1\n"
PREFIX = struct.Struct("<8sIQ")
#: Counts for the file's name: a new layout, or another way to compare entries, is another file.
VERSION = 1
ALIGNMENT = 64


class Hashes:
    """A sorted set of 64-bit hashes (`values`); asking takes about half a microsecond."""

    def __init__(self, values: memoryview):
        self.values = values
        #: Where the hashes with the same first bits begin, about 64 of them: half of the steps of a search less.
        bits = max(1, (len(values) // 64).bit_length())
        self._shift = 64 - bits
        edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(self._shift)
        starts = np.searchsorted(np.frombuffer(values, np.uint64), edges)
        self._starts = np.append(starts, len(values)).astype(np.uint32).data

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, entry: str) -> bool:
        wanted = hash_of(entry)
        bucket = wanted >> self._shift
        end = self._starts[bucket + 1]
        place = bisect_left(self.values, wanted, self._starts[bucket], end)
        return place < end and self.values[place] == wanted


@dataclass(frozen=True)
class Lists:
    """What an open file holds."""

    name: str
    domains: Hashes
    urls: Hashes
    hosts: Hashes  # of the URLs, in the form of `same_address`
    depth: int  # the largest number of slashes in a URL
    words: dict[str, list[str]]


def hash_of(entry: str) -> int:
    return xxhash.xxh3_64_intdigest(entry.encode("utf-8", "surrogatepass"))


def open_lists(sources: list[Source], exact: bool) -> Lists:
    """The lists of `sources`, built in the user's cache where they are not there yet (for datatrove's, in seconds).

    Domains and URLs are compared as they are written (`exact`), or by `same_host` and `same_address`. The file's name is made of
    the content of the sources, so other sources are another file. Raises InputError in one sentence.
    """
    key = canonical_json([VERSION, sys.byteorder, exact, digest_of(sources)])
    path = cache_folder() / "urls" / f"{xxhash.xxh3_128_hexdigest(key)}.bin"
    if not path.is_file():
        with alone(path):
            if not path.is_file():
                with Storage(str(path.parent)).write_atomic(path.name) as file:
                    for part in build(sources, exact):
                        file.write(part)
    return read_lists(path)


def build(sources: list[Source], exact: bool) -> list[bytes | memoryview]:
    """The content of the file in parts: head and sections. Takes about three times the size of the hashes in memory."""
    domains = _entries(sources, "domains")
    listed = list(_entries(sources, "urls"))
    addresses = [_address(url) for url in listed]
    sections = [
        _hashed(domains if exact else map(same_host, domains)),
        _hashed(listed if exact else addresses),
        _hashed(TAIL.split(address, maxsplit=1)[0] for address in addresses),
    ]
    body = xxhash.xxh3_64()
    for section in sections:
        body.update(section.data)
    header = {
        "sections": [len(section) for section in sections],
        "depth": max((address.count("/") for address in addresses), default=0),
        "words": {kind: sorted(set(_entries(sources, kind))) for kind in WORDS},
        "xxh3": body.intdigest(),
    }
    text = canonical_json(header).encode()
    head = PREFIX.pack(MAGIC, len(text), xxhash.xxh3_64_intdigest(text)) + text
    return [head + bytes(-len(head) % ALIGNMENT), *(section.data for section in sections)]


def _entries(sources: list[Source], kind: Kind) -> Iterator[str]:
    return (entry for source in sources if source.kind == kind for entry in source.entries())


def _address(url: str) -> str:
    host, tail = split_url(url)
    return same_address(same_host(host), tail)


def _hashed(entries: Iterable[str]) -> npt.NDArray[np.uint64]:
    hashes = np.fromiter(map(hash_of, entries), np.uint64)
    hashes.sort()
    return hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]


def read_lists(path: Path) -> Lists:
    """Maps a file that `build` made, after checking all of it. Raises InputError where it is damaged."""
    try:
        with open(path, "rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: this list can't be read ({error}).") from error
    try:
        return _parse(path, content)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise InputError(f"{path}: this list is damaged ({error}); remove the file, and it is built anew.") from error


def _parse(path: Path, content: memoryview) -> Lists:
    magic, length, checksum = PREFIX.unpack(content[: PREFIX.size])
    if magic != MAGIC:
        raise ValueError("it does not begin like one")
    text = bytes(content[PREFIX.size : PREFIX.size + length])
    if len(text) < length or xxhash.xxh3_64_intdigest(text) != checksum:
        raise ValueError("its header is not as it was written")
    header = json.loads(text)
    start = PREFIX.size + length
    body = content[start + -start % ALIGNMENT :]
    ends = [0, *accumulate(header["sections"])]
    if len(body) != 8 * ends[-1] or xxhash.xxh3_64_intdigest(body) != header["xxh3"]:
        raise ValueError("its hashes are not as they were written")
    values = body.cast("Q")
    domains, urls, hosts = (Hashes(values[start:end]) for start, end in pairwise(ends))
    return Lists(path.stem, domains, urls, hosts, header["depth"], header["words"])
