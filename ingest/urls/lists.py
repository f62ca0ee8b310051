"""Lists of domains and URLs. Each is one Arrow file of sorted 64-bit hashes, which all processes of a machine map into memory and share.

A domain is on a list if the XXH3-64 of its UTF-8 bytes is. With n = 4,558,940 hashes, a domain that is not on the list matches with
probability n / 2^64 = 2.5e-13: in crawls of a billion pages with two look-ups each, one false match is expected in 2,000 crawls. The file
takes 36.6 MB; a Python set of the strings would take 623 MB in each process.
"""

import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import sys
import tarfile
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple
from urllib.parse import unquote

import can_ada
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from corpusmill.pipeline.cache import cache_folder, made
from corpusmill.pipeline.config import canonical_json, parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import open_file
from corpusmill.pipeline.shards import batches_buffer
from corpusmill.pipeline.storage import Storage

#: The separators of words in a URL: everything except ASCII letters and digits, as in datatrove.
SEPARATORS = re.compile(r"[^a-zA-Z0-9]+")


def squeeze(text: str) -> str:
    """Returns the ASCII letters and digits of `text`, in lower case."""
    return SEPARATORS.sub("", text).lower()


class FoundWords(NamedTuple):
    hard: list[str]  # all three lists are in alphabetical order
    soft: list[str]  # each word once, even if they are too few to drop the URL
    subwords: list[str]


NOTHING = FoundWords([], [], [])


class WordLists:
    """Looks for all words at once. All words are squeezed: letters and digits in lower case.

    Hard and soft words are compared with the words of the URL, in the URL's own case. Subwords are looked for in the squeezed URL.
    """

    def __init__(self, hard: Iterable[str], soft: Iterable[str], subwords: Iterable[str]):
        self.hard, self.soft = frozenset(hard), frozenset(soft)
        self._whole = self.hard | self.soft
        self._subwords = sorted(set(subwords))
        self._any_subword = re.compile(_any_of(self._subwords)) if self._subwords else None

    def find(self, text: str) -> FoundWords:
        """Returns the listed words in `text`."""
        words = SEPARATORS.split(text)
        squeezed = "".join(words).lower()
        whole = not self._whole.isdisjoint(words)
        part = self._any_subword is not None and self._any_subword.search(squeezed)
        if not whole and not part:
            return NOTHING
        return FoundWords(
            sorted(self.hard.intersection(words)),
            sorted(self.soft.intersection(words)),
            [word for word in self._subwords if word in squeezed] if part else [],
        )


def _any_of(words: Iterable[str]) -> str:
    """Returns a pattern for any of `words` (letters and digits), as a trie, which matches 6 times faster than a list of alternatives.

    A word that begins with another word is left out, because the shorter one matches wherever the longer one does.
    """
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern(root)


def _pattern(node: dict[str, Any]) -> str:
    if "" in node:
        return ""
    parts = [character + _pattern(child) for character, child in sorted(node.items())]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


#: Characters of the longest valid host name (RFC 1035, section 2.3.4).
LONGEST = 255
#: A host that browsers read as it is written. The last label of an IPv4 address begins with a digit.
NAME = re.compile(r"(?:[a-z0-9._-]*\.)?[a-z_-][a-z0-9_-]*")
#: A URL with such a host, with or without a port, so that there is only one way to read it.
PLAIN = re.compile(rf"https?://({NAME.pattern})(?::[0-9]*)?(?:[/?#][^\t\n\r]*)?\Z")
SCHEME = re.compile(r"\A\s*[a-zA-Z0-9+.-]+://")
#: The schemes whose hosts browsers decode (WHATWG URL Standard, "special scheme").
SPECIAL = frozenset({"http:", "https:", "ftp:", "ws:", "wss:"})
TAIL = re.compile(r"[/?#]")


class Host(NamedTuple):
    """The parts of a host by the rules of tldextract, in the given case and encoding."""

    name: str  # the fully qualified domain name; empty where there is no public suffix
    domain: str  # the domain under the public suffix; empty where there is none
    rest: str  # a host without a public suffix: an IP address, `box.internal`; else empty


class HostReader:
    """Splits hosts with the public suffix list that ships with tldextract; never downloads another one.

    Suffixes that companies have registered (`blogspot.com`) do not count as public, as in datatrove.
    """

    def __init__(self) -> None:
        from tldextract import TLDExtract

        self._extract: Any = TLDExtract(cache_dir=None, suffix_list_urls=())

    def read(self, url_or_host: str) -> Host:
        found = self._extract(url_or_host)
        rest = "" if found.suffix else f"{found.subdomain}.{found.domain}".lstrip(".")
        return Host(found.fqdn, found.top_domain_under_public_suffix, rest)


#: Names at the top that are no public suffix, and still no ends of files' names (RFC 2606, RFC 6761, RFC 6762, RFC 7686, RFC 9476).
SPECIAL_USE = ("alt", "example", "internal", "invalid", "local", "localhost", "onion", "test")


def is_domain(given: str) -> bool:
    """Whether an entry of a recipe is a domain or an IP address, and not the path of a file."""
    host = read_url(f"http://{given}").host
    with suppress(ValueError):
        return bool(ip_address(given.strip("[]")))
    plain = same_host(given) == host and re.fullmatch(r"[^\s*./][^\s*/]*", given) is not None
    return plain and (bool(HostReader().read(host).domain) or host.rpartition(".")[2] in SPECIAL_USE)


class Address(NamedTuple):
    """A URL as browsers read it (`read_url`)."""

    host: str  # lower case, no dot at its end, other alphabets in Punycode, IP addresses in one notation
    tail: str  # path and query
    text: str  # the whole


def read_url(url: str) -> Address:
    """Reads a URL by the WHATWG URL Standard, any scheme as HTTP; adds the scheme if there is none.

    Accepts any text that a list or a crawl may have: what no browser accepts is split as it is written.
    """
    url = url.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    for text in (url, f"http://{SCHEME.sub('', url)}"):
        with suppress(ValueError):
            found = can_ada.parse(text)
            if found.protocol in SPECIAL:
                return Address(_one_notation(found.hostname), found.pathname + found.search, found.href)
    host, tail = _split(url)
    return Address(host.strip().lower().rstrip("."), tail.partition("#")[0], url)


def _one_notation(host: str) -> str:
    """Returns the IPv4 address of an IPv6 address that contains one (`::ffff:0:0/96`)."""
    mapped = IPv6Address(host[1:-1]).ipv4_mapped if host.startswith("[::ffff:") else None
    return str(mapped) if mapped else host.removesuffix(".")


def _split(url: str) -> tuple[str, str]:
    rest = SCHEME.sub("", url).removeprefix("//")
    found = TAIL.search(rest)
    place = found.start() if found else len(rest)
    host = rest[:place].rpartition("@")[2]
    end = host.find(":", host.find("]") + 1)  # an IPv6 address has its colons in brackets
    return (host if end < 0 else host[:end]), rest[place:]


def same_host(host: str) -> str:
    """Returns the normal form of a listed host (`Address.host`)."""
    if NAME.fullmatch(host):
        return host
    read = read_url(f"http://[{host.strip('[]')}]" if host.count(":") > 1 else f"http://{host}")
    return host if read.tail.strip("/") else read.host


def same_address(url: Address) -> str:
    """Returns the normal form of a URL in lists: `host/path?query`, without `www.` or a slash at its end."""
    return url.host.removeprefix("www.") + url.tail.rstrip("/")


def address_prefixes(address: str, depth: int) -> list[str]:
    """Returns the entries of a list that match an address: its beginnings up to a slash, with at most `depth` slashes, and the address."""
    path = address.partition("?")[0].rstrip("/")
    parts = path.split("/", depth + 1)
    prefixes = ["/".join(parts[: count + 1]) for count in range(1, min(depth, len(parts) - 1) + 1)]
    return prefixes if address in prefixes else [*prefixes, address]


def readable(url: str) -> str:
    """Returns a URL with its percent-encoding undone, in lower case; characters beyond ASCII separate words."""
    text = unquote(url, errors="replace") if "%" in url else url
    if not text.isascii():
        text = SEPARATORS.sub(" ", text)  # in lower case, `İ` would become `i` and a mark
    return text.lower()


Kind = Literal["domains", "urls", "hard_words", "soft_words", "subwords"]
#: The kinds with millions of entries, which are hashed.
LISTS: tuple[Kind, ...] = ("domains", "urls")
#: datatrove's folder of lists, and the archive in it with the files `domains` and `urls`.
ASSETS = "assets"
ARCHIVE = "url_filterblacklists*.tar.gz"
#: The kinds of words, with datatrove's file of each.
WORDS: dict[Kind, str] = {"hard_words": "banned_words.txt", "soft_words": "soft_banned_words.txt", "subwords": "banned_subwords.txt"}


@dataclass(frozen=True)
class ListFile:
    """A file with an entry in each line, or one entry, a domain."""

    kind: Kind
    path: str
    member: str | None = None  # the name of the file in the tar archive at `path`
    literal: bool = False  # `path` is the entry itself

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens the file, decompressed; raises InputError where it can't be read."""
        with open_file(self.path) as file:
            try:
                if self.member:
                    with tarfile.open(fileobj=file, mode="r:gz") as archive:
                        inner = archive.extractfile(self.member)
                        if inner is None:
                            raise InputError(f"{self.path}: {self.member} in it is no file.")
                        with inner:
                            yield inner
                elif self.path.endswith(".gz"):
                    with gzip.open(file) as inflated:
                        yield inflated  # type: ignore[misc]
                else:
                    yield file
            except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
                raise InputError(f"{self.path}: this list of {self.kind} can't be read ({error}).") from error

    def entries(self) -> Iterator[str]:
        """Yields the entries, without comments, blank lines and surrounding spaces. Words are squeezed."""
        if self.literal:
            yield self.path
            return
        form: Callable[[str], str] = str.strip if self.kind in LISTS else squeeze
        with self.open() as file:
            for number, content in enumerate(io.BufferedReader(file), 1):  # type: ignore[type-var]
                try:
                    line = content.decode()
                except UnicodeDecodeError as error:
                    raise InputError(f"{self.path}: line {number} of this list of {self.kind} is not UTF-8.") from error
                if number == 1:
                    line = line.removeprefix("\ufeff")
                entry = form(line)
                if entry and not line.startswith("#"):
                    yield entry


def shipped_sources() -> list[ListFile]:
    """Returns the lists of the installed datatrove. Raises InputError if it does not have them."""
    found = importlib.util.find_spec("datatrove")
    roots = list(found.submodule_search_locations or []) if found else []
    for folder in [Path(root) / ASSETS for root in roots]:
        archives = sorted(folder.glob(ARCHIVE))
        if archives and all((folder / name).is_file() for name in WORDS.values()):
            archive = str(archives[-1])
            words = [ListFile(kind, str(folder / name)) for kind, name in WORDS.items()]
            return [ListFile("domains", archive, "domains"), ListFile("urls", archive, "urls"), *words]
    version = importlib.metadata.version("datatrove") if found else "none"
    raise InputError(
        f"ingest.url_filter: the installed datatrove ({version}) ships no URL lists that are known here; "
        "set url_filter.shipped_lists to false, or install datatrove 0.10."
    )


def digest_of(sources: list[ListFile]) -> str:
    """Returns a SHA-256 (hex) of the kinds and the contents of all files. It does not depend on their names."""
    sha = hashlib.sha256()
    by_path: dict[str, str] = {}
    for source in sources:
        if source.literal:
            by_path[source.path] = hashlib.sha256(source.path.encode()).hexdigest()
        elif source.path not in by_path:
            with open_file(source.path) as file:
                by_path[source.path] = _digest(file)
        sha.update(f"{source.kind}\0{source.member or ''}\0{by_path[source.path]}\n".encode())
    return sha.hexdigest()


def _digest(file: IO[bytes]) -> str:
    sha = hashlib.sha256()
    while chunk := file.read(1 << 20):
        sha.update(chunk)
    return sha.hexdigest()


#: A part of the name of the cached file. It must change when the layout changes, or the way in which entries are compared.
VERSION = 2
#: The columns of the file, each with one row: the hashes of the domains, of the URLs, and of the hosts of the URLs.
HASHES = ("domains", "urls", "hosts")


class Hashes:
    """A sorted set of 64-bit hashes (`values`). A look-up takes about a microsecond."""

    def __init__(self, values: npt.NDArray[np.uint64]):
        self.values = values.data

    def __len__(self) -> int:
        return len(self.values)

    def __contains__(self, entry: str) -> bool:
        wanted = hash_of(entry)
        place = bisect_left(self.values, wanted)
        return place < len(self.values) and self.values[place] == wanted


@dataclass(frozen=True)
class Lists:
    """The domains, URLs and words of a list file (`open_lists`)."""

    name: str
    domains: Hashes
    urls: Hashes
    hosts: Hashes  # the hosts of the URLs, in the form of `same_address`
    depth: int  # the largest number of slashes in a URL
    words: dict[str, list[str]]


def hash_of(entry: str) -> int:
    return xxhash.xxh3_64_intdigest(entry.encode("utf-8", "surrogatepass"))


def open_lists(sources: list[ListFile], exact: bool) -> Lists:
    """Opens the lists of `sources`. Builds their file if it is not in the user's cache, which takes seconds for datatrove's lists.

    Domains and URLs are compared as they are written (`exact`), or by `same_host` and `same_address`. The name of the file is a hash of the
    content of the sources, so other sources have another file. Raises InputError if a source can't be read.
    """
    key = canonical_json([VERSION, sys.byteorder, exact, digest_of(sources)])
    path = cache_folder() / "urls" / f"{xxhash.xxh3_128_hexdigest(key)}.arrow"
    storage = Storage(str(path.parent))
    return read_lists(made(path, path, lambda: storage.write_bytes(path.name, build(sources, exact).to_pybytes())))


def build(sources: list[ListFile], exact: bool) -> pa.Buffer:
    """Returns the content of the cached file that `open_lists` reads: sorted hashes; as metadata the lists of words, and the largest depth
    of a URL. Takes about three times the memory of the hashes."""
    domains = _entries(sources, "domains")
    listed = list(_entries(sources, "urls"))
    addresses = [same_address(read_url(url)) for url in listed]
    columns = [
        _hashed(domains if exact else map(same_host, domains)),
        _hashed(listed if exact else addresses),
        _hashed(TAIL.split(address, maxsplit=1)[0] for address in addresses),
    ]
    depth = max((address.count("/") for address in addresses), default=0)
    words = {kind: sorted(set(_entries(sources, kind))) for kind in WORDS}
    table = pa.table([pa.LargeListArray.from_arrays([0, len(hashes)], hashes) for hashes in columns], names=HASHES)
    table = table.replace_schema_metadata({"lists": canonical_json({"depth": depth, "words": words})})
    return batches_buffer(table.schema, [table])


def _entries(sources: list[ListFile], kind: Kind) -> Iterator[str]:
    return (entry for source in sources if source.kind == kind for entry in source.entries())


def _hashed(entries: Iterable[str]) -> npt.NDArray[np.uint64]:
    hashes = np.fromiter(map(hash_of, entries), np.uint64)
    hashes.sort()
    return hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]


def read_lists(path: Path) -> Lists:
    """Maps a file that `open_lists` made."""
    with pa.memory_map(str(path)) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    about = parse_json(batch.schema.metadata[b"lists"])
    domains, urls, hosts = (Hashes(batch[name].values.to_numpy()) for name in HASHES)
    return Lists(path.stem, domains, urls, hosts, about["depth"], about["words"])
