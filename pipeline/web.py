"""Downloads files of web servers into the user's cache, and finds them there.

A downloaded file lies in the cache under its host and path, with a JSON file (its size and the server's tags) next to it. Whoever opens
its URL gets this file; sources, offsets and fingerprints are the same with and without it. Downloads use few connections, repeat failed
requests after pauses, and go on where they stopped.
"""

import fcntl
import gzip
import io
import json
import os
import random
import shutil
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

import corpusmill
from corpusmill.pipeline import redirects
from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import Storage, fsync_folder
from corpusmill.pipeline.stores import WEB_BUSY, asked_pause
from corpusmill.pipeline.watch.progress import Bytes

FOLDER, SIDECAR = "web", ".json"
AGENT = f"corpusmill/{corpusmill.__version__} (reader of web archives)"
#: Connections to a server at a time.
CONNECTIONS = 2
#: Seconds for which a server may be silent, before and during its answer.
TIMEOUT = 60.0
CHUNK = 1 << 16  # bytes read at a time; a part of a chunk is lost when the server falls silent
MISSING = (401, 403, 404, 410)  # a bucket whose list is not public answers 403 for missing objects
#: The headers of a file that change with its content.
TAGS = ("ETag", "Last-Modified")
PART = ".part"
#: Seconds between two tries to lock a file that another run downloads.
LOCK_SECONDS = 0.2
#: The most bytes that a list of a crawl's files may decompress to; the largest lists have some 15 MB.
MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Cached:
    """A complete file in the cache: its path, its size, and the server's tags (TAGS)."""

    path: Path
    bytes: int
    tags: dict[str, str] = field(default_factory=dict)


def place_of(url: str) -> Path | None:
    """Returns the place of a URL's file in the cache, whether it is there or not; None if the URL is no plain file of a web server."""
    parts = urlsplit(url)
    steps = [step for step in parts.path.split("/") if step]
    if parts.scheme not in ("http", "https") or not parts.netloc or not steps or parts.query or {".", ".."} & set(steps):
        return None
    return cache_folder().joinpath(FOLDER, quote(parts.netloc, safe=""), *[quote(step) for step in steps])


def cached(url: str) -> Cached | None:
    """Returns the file of a URL in the cache; None if it is missing or incomplete."""
    place = place_of(url)
    if place is None:
        return None
    try:
        sidecar = parse_json(_sidecar(place).read_bytes())
        found = Cached(place, int(sidecar["bytes"]), dict(sidecar["tags"]))
        return found if place.stat().st_size == found.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(place: Path, size: int, tags: dict[str, str]) -> None:
    """Writes the JSON file of a file, before the file is moved to its place."""
    sidecar = asdict(Cached(place, size, tags)) | {"path": place.name}
    Storage(str(place.parent)).write_bytes(_sidecar(place).name, json.dumps(sidecar).encode())


def forget(url: str) -> None:
    """Removes the file of a URL from the cache."""
    place = place_of(url)
    if place is not None:
        place.unlink(missing_ok=True)
        _sidecar(place).unlink(missing_ok=True)


def _sidecar(place: Path) -> Path:
    return place.with_name(place.name + SIDECAR)


def gunzip(content: bytes, most: int = MOST_BYTES) -> bytes:
    """Returns the content of a gzip file. Raises OSError if it is damaged, or decompresses to more than `most` bytes."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(f"it is no whole gzip file ({error})") from error
    if len(found) > most:
        raise OSError(f"it decompresses to more than {most:,} bytes")
    return found


@dataclass(frozen=True)
class Patience:
    """How often a file is requested without progress, and the pauses between the requests (seconds)."""

    tries: int = 8
    connects: int = 4  # tries where the server does not answer at all
    pause: float = 1.0  # before the second try; doubled before each further one
    longest: float = 120.0
    longest_asked: float = 900.0  # the longest pause that a server may ask for (Retry-After)


class _Again(Exception):
    """An attempt did not complete a file; the message says why. `asked`: the pause that the server asked for (seconds). `connected`: the
    server has answered."""

    def __init__(self, reason: object, asked: float | None = None, connected: bool = True):
        super().__init__(str(reason))
        self.asked, self.connected = asked, connected


def download(urls: Sequence[str], bar: Bytes | None = None, patience: Patience | None = None) -> None:
    """Downloads the files of `urls` that are not in the cache. Raises InputError for a file that a server does not have or that
    the disk can't hold, and CorpusmillError for a server that keeps failing. The part that came until then is kept for the next time."""
    missing = [url for url in dict.fromkeys(urls) if cached(url) is None]
    if not missing:
        return
    stop = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            jobs = [pool.submit(_Download(url, bar or Bytes(), patience or Patience(), stop).run) for url in missing]
            for job in as_completed(jobs):
                job.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


class _Download:
    """The download of one file."""

    def __init__(self, url: str, bar: Bytes, patience: Patience, stop: threading.Event):
        place = place_of(url)
        if place is None:
            raise InputError(f"{url}: it can't be downloaded, since it is no plain file of a web server.")
        self.url, self.bar, self.patience, self.stop = url, bar, patience, stop
        self.place: Path = place
        self.part = place.with_name(place.name + PART)
        self.tag_file = place.with_name(place.name + PART + "-tag")
        self.counted: int | None = None  # the bytes of this file that the bar shows; None before the first answer

    def run(self) -> None:
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with open(self.place.with_name(self.place.name + ".lock"), "wb") as lock:
                if self._lock(lock) and cached(self.url) is None:
                    self._run()
        except CorpusmillError:
            raise
        except redirects.RedirectRefusedError as error:
            raise InputError(f"{self.url}: {error}.") from error
        except OSError as error:
            raise InputError(
                f"{error.filename or self.part}: can't be written ({error.strerror}); run the same command again to go on."
            ) from error

    def _lock(self, file: IO[bytes]) -> bool:
        """Waits while another run fetches the same file. Returns False if this download has to stop."""
        while not self.stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                self.stop.wait(LOCK_SECONDS)
        return False

    def _run(self) -> None:
        tries = silent = 0  # tries since the last progress
        while not self.stop.is_set():
            before = self._size()
            try:
                self._attempt()
                return
            except _Again as again:
                tries, silent = (1, 0) if self._size() > before else (tries + 1, silent + (not again.connected))
                if silent >= 3 and (sentence := redirects.lasting_fault(self.url, again)):
                    raise InputError(sentence) from again
                if tries >= self.patience.tries or silent >= self.patience.connects:
                    raise CorpusmillError(
                        f"{self.url}: can't be fetched ({again}); run the same command again to go on where it stopped."
                    ) from again
                self._wait(tries, again.asked)

    def _wait(self, tries: int, asked: float | None) -> None:
        pause = min(self.patience.pause * 2 ** (tries - 1), self.patience.longest) * random.uniform(1.0, 2.0)
        self.stop.wait(pause if asked is None else min(max(asked, 0.0), self.patience.longest_asked))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        """Makes one request: for the missing part where the server can confirm that the file is unchanged, else for the whole file."""
        have = self._size()
        tag = self.tag_file.read_text() if have and self.tag_file.exists() else ""
        headers = {"User-Agent": AGENT} | ({"Range": f"bytes={have}-", "If-Range": tag} if tag else {})
        try:
            answer = redirects.opener().open(urllib.request.Request(self.url, headers=headers), timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            answer = error  # an error status is an answer, too
        except redirects.RedirectRefusedError:
            raise
        except (OSError, HTTPException) as error:
            asked = 1.0 if redirects.lasting_fault(self.url, error) else None
            raise _Again(getattr(error, "reason", error), asked, connected=not isinstance(error, urllib.error.URLError)) from error
        with answer:
            self._take(answer, have if tag else 0)

    def _take(self, answer: Any, have: int) -> None:
        start, size = _range(answer)
        answered = f"the server says {answer.status} {answer.reason or ''}".rstrip()
        if answer.status == 416 and size == have:
            self._publish(answer, size)
        elif answer.status in WEB_BUSY:
            raise _Again(answered, asked_pause(answer.headers))
        elif answer.status in MISSING:
            raise InputError(f"{self.url}: there is no such file ({answered}).")
        elif answer.status == 416 or (answer.status == 206 and start != have):
            self.part.unlink(missing_ok=True)
            raise _Again("the server gives another part than was asked for")
        elif 300 <= answer.status < 400:  # not followed: the target is no web server, or there were too many
            redirects.check_redirect(self.url, urljoin(self.url, answer.headers.get("Location", "")))
            raise CorpusmillError(f"{self.url}: the request was sent on more than {redirects.MOST} times.")
        elif answer.status not in (200, 206):
            raise CorpusmillError(f"{self.url}: {answered}.")
        elif size is None:
            raise InputError(f"{self.url}: the server doesn't say how large it is.")
        else:
            self._receive(answer, have if answer.status == 206 else 0, size)
            self._publish(answer, size)

    def _receive(self, answer: Any, have: int, size: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if free < size - have:
            raise InputError(
                f"{self.url}: {size - have:,} bytes are missing and {self.part.parent} has room for {free:,}; "
                "set CORPUSMILL_CACHE to a folder on a larger disk."
            )
        if self.counted is None:
            self.bar.expect(size)
        self.bar.advance(have - (self.counted or 0))  # below 0 where the file begins anew
        self.counted = have
        tag = answer.headers.get("ETag", "")
        with open(self.part, "ab" if have else "wb") as file:
            if not have:
                self.tag_file.write_text("" if tag.startswith("W/") else tag)  # a weak tag says nothing about bytes
            while chunk := self._read(answer):
                have += file.write(chunk)
                self.bar.advance(len(chunk))
                self.counted = have
            file.flush()
            os.fsync(file.fileno())
        if have != size:
            raise _Again(f"{have:,} of {size:,} bytes came")

    def _read(self, answer: Any) -> bytes:
        if self.stop.is_set():
            raise _Again("stopped")
        try:
            return bytes(answer.read(CHUNK))
        except (OSError, HTTPException) as error:
            raise _Again(error) from error

    def _publish(self, answer: Any, size: int) -> None:
        describe(self.place, size, {tag: answer.headers[tag] for tag in TAGS if tag in answer.headers})
        os.replace(self.part, self.place)
        fsync_folder(self.place.parent)
        self.tag_file.unlink(missing_ok=True)


def _range(answer: Any) -> tuple[int | None, int | None]:
    """Returns the offset in the file at which the bytes of an answer begin, and the size of the file; None if it is not given."""
    given = answer.headers.get("Content-Range", "")
    if answer.status in (206, 416):
        span, _, size = given.removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
        return (int(start) if start.isdecimal() else None), (int(size) if size.isdecimal() else None)
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
