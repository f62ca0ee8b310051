"""Whole files from web servers into the cache: politely, over bad lines, going on where it stopped."""

import fcntl
import os
import random
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, MaxRetryError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

import corpusmill
from corpusmill.ingest.cached import cached, describe, place_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import fsync_folder
from corpusmill.pipeline import redirects
from corpusmill.pipeline.watch.progress import Bytes

AGENT = f"corpusmill/{corpusmill.__version__} (reader of web archives)"
#: Connections to a server at a time.
CONNECTIONS = 2
TIMEOUT = urllib3.Timeout(connect=20.0, read=60.0)
CHUNK = 1 << 16  # what of one has come is lost when the server falls silent
#: Answers of servers that have too much to do, or are being mended.
BUSY = (408, 425, 429, 500, 502, 503, 504)
MISSING = (401, 403, 404, 410)  # a bucket whose list is not public says 403 of what it does not have
#: What a server says of a file that changes with its content.
TAGS = ("ETag", "Last-Modified")
PART = ".part"
#: How often it is looked whether another run has finished a file.
LOCK_SECONDS = 0.2


@dataclass(frozen=True)
class Patience:
    """How often a file is asked for without anything new coming, and the pauses between (seconds)."""

    tries: int = 8
    connects: int = 4  # of a server that does not answer at all
    pause: float = 1.0  # before the second try; doubled before each further one
    longest: float = 120.0
    longest_asked: int = 900  # of a server that asks for a pause (Retry-After)

    def retry(self) -> Retry:
        few = self.connects - 1  # urllib3 counts refused connections and unknown hosts among the others
        return Retry(
            self.tries - 1, connect=few, other=few, backoff_factor=self.pause, backoff_max=self.longest, backoff_jitter=self.pause
        )  # fmt: skip


class _Again(Exception):
    """An attempt did not bring all of a file. `answer`: the server's, where there was one."""

    def __init__(self, reason: Exception | str, answer: BaseHTTPResponse | None = None):
        super().__init__(str(reason))
        self.answer = answer
        self.error = reason if isinstance(reason, Exception) else None


def download(urls: Sequence[str], bar: Bytes | None = None, patience: Patience | None = None) -> None:
    """Sees to it that the files of `urls` are in the cache. Raises InputError for what a server does not have or the
    disk can't hold, CorpusmillError for a server that keeps failing; what came until then stays and is not fetched again."""
    missing = [url for url in dict.fromkeys(urls) if cached(url) is None]
    if not missing:
        return
    stop = threading.Event()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            jobs = [pool.submit(_Download(url, _manager(url), bar or Bytes(), patience or Patience(), stop).run) for url in missing]
            for job in as_completed(jobs):
                job.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _manager(url: str) -> urllib3.PoolManager:
    """What connects to the server of a URL, by the proxy that the environment names for it, if any."""
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    return _manager_by(None if proxy is None or proxy_bypass(parts.hostname or "") else proxy)


@cache
def _manager_by(proxy: str | None) -> urllib3.PoolManager:
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if proxy is None:
        return urllib3.PoolManager(maxsize=CONNECTIONS, headers=headers)
    return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS, headers=headers)


class _Download:
    """One file."""

    def __init__(self, url: str, manager: urllib3.PoolManager, bar: Bytes, patience: Patience, stop: threading.Event):
        place = place_of(url)
        if place is None:
            raise InputError(f"{url}: it can't be downloaded, since it is no plain file of a web server.")
        self.url, self.manager, self.bar, self.patience, self.stop = url, manager, bar, patience, stop
        self.place: Path = place
        self.part = place.with_name(place.name + PART)
        self.tag_file = place.with_name(place.name + PART + "-tag")
        self.expected = False

    def run(self) -> None:
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with open(self.place.with_name(self.place.name + ".lock"), "wb") as lock:
                if self._lock(lock) and cached(self.url) is None:
                    self._run()
        except OSError as error:
            raise InputError(
                f"{error.filename or self.part}: can't be written ({error.strerror}); run the same command again to go on."
            ) from error

    def _lock(self, file: IO[bytes]) -> bool:
        """Waits while another run fetches the same file; False where this one is to stop."""
        while not self.stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                self.stop.wait(LOCK_SECONDS)
        return False

    def _run(self) -> None:
        retry = self.patience.retry()
        while not self.stop.is_set():
            before = self._size()
            try:
                self._attempt()
                return
            except _Again as again:
                if self._size() > before:
                    retry = self.patience.retry()
                try:
                    retry = retry.increment("GET", self.url, again.answer, again.error)
                except MaxRetryError as error:
                    raise CorpusmillError(
                        f"{self.url}: can't be fetched ({again}); run the same command again to go on where it stopped."
                    ) from error
                self.stop.wait(self._pause(retry, again.answer))

    def _pause(self, retry: Retry, answer: BaseHTTPResponse | None) -> float:
        try:
            asked = retry.get_retry_after(answer) if answer is not None else None
        except InvalidHeader:
            asked = None
        if asked is not None:
            return min(asked, self.patience.longest_asked)
        return max(retry.get_backoff_time(), self.patience.pause * (1 + random.random()))

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        """One request: for what is missing where the file is known to be the same, else for all of it."""
        have = self._size()
        tag = self.tag_file.read_text() if have and self.tag_file.exists() else ""
        headers = {"Range": f"bytes={have}-", "If-Range": tag} if tag else {}
        try:
            answer = self._ask(headers)
        except HTTPError as error:
            raise _Again(error.reason or error if isinstance(error, MaxRetryError) else error) from error
        try:
            self._take(answer, have if tag else 0)
        finally:
            answer.close()  # what is left of a body is not waited for
            answer.release_conn()

    def _ask(self, headers: dict[str, str]) -> BaseHTTPResponse:
        """The answer of the server to which the URL's sends the request on, within the rules of `store/redirects.py`."""
        url, once = self.url, Retry(0, redirect=False)
        for _ in range(redirects.MOST + 1):
            answer = self.manager.request(
                "GET",
                url,
                headers={**self.manager.headers, **headers},
                preload_content=False,
                timeout=TIMEOUT,
                retries=once,
                redirect=False,
            )
            target = answer.get_redirect_location()
            if not target:
                return answer
            answer.close()
            answer.release_conn()
            target = urljoin(url, target)
            try:
                redirects.check_redirect(url, target)
            except redirects.RedirectRefusedError as error:
                raise InputError(f"{self.url}: {error}.") from error
            url = target
        raise CorpusmillError(f"{self.url}: the request was sent on more than {redirects.MOST} times.")

    def _take(self, answer: BaseHTTPResponse, have: int) -> None:
        start, size = _range(answer)
        if answer.status == 416 and size == have:
            self._publish(answer, size)
            return
        if answer.status in BUSY:
            raise _Again(f"the server says {answer.status} {answer.reason or ''}".rstrip(), answer)
        if answer.status in MISSING:
            raise InputError(f"{self.url}: there is no such file (the server says {answer.status} {answer.reason or ''}".rstrip() + ").")
        if answer.status == 416 or (answer.status == 206 and start != have):
            self.part.unlink(missing_ok=True)
            raise _Again("the server gives another part than was asked for", answer)
        if answer.status not in (200, 206):
            raise CorpusmillError(f"{self.url}: the server says {answer.status} {answer.reason or ''}".rstrip() + ".")
        if size is None:
            raise InputError(f"{self.url}: the server doesn't say how large it is.")
        self._receive(answer, have if answer.status == 206 else 0, size)
        self._publish(answer, size)

    def _receive(self, answer: BaseHTTPResponse, have: int, size: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if free < size - have:
            raise InputError(
                f"{self.url}: {size - have:,} bytes are missing and {self.part.parent} has room for {free:,}; "
                "set CORPUSMILL_CACHE to a folder on a larger disk."
            )
        if not self.expected:
            self.expected = True
            self.bar.expect(size)
            self.bar.advance(have)
        tag = answer.headers.get("ETag", "")
        with open(self.part, "ab" if have else "wb") as file:
            if not have:
                self.tag_file.write_text("" if tag.startswith("W/") else tag)  # a weak tag says nothing about bytes
            try:
                for chunk in answer.stream(CHUNK, decode_content=False):
                    if self.stop.is_set():
                        raise _Again("stopped")
                    have += file.write(chunk)
                    self.bar.advance(len(chunk))
            except HTTPError as error:
                raise _Again(error) from error
            file.flush()
            os.fsync(file.fileno())
        if have != size:
            raise _Again(f"{have:,} of {size:,} bytes came")

    def _publish(self, answer: BaseHTTPResponse, size: int) -> None:
        describe(self.place, size, {tag: answer.headers[tag] for tag in TAGS if tag in answer.headers})
        os.replace(self.part, self.place)
        fsync_folder(self.place.parent)
        self.tag_file.unlink(missing_ok=True)


def _range(answer: BaseHTTPResponse) -> tuple[int | None, int | None]:
    """Where the bytes of an answer begin in the file, and how large the file is."""
    given = answer.headers.get("Content-Range", "")
    if answer.status in (206, 416):
        span, _, size = given.removeprefix("bytes ").partition("/")
        start = span.partition("-")[0]
        return (int(start) if start.isdecimal() else None), (int(size) if size.isdecimal() else None)
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
