"""Object stores (`s3://`, `gs://`, Azure) by obstore, and their objects as binary streams.

obstore repeats requests that fail for a while (5xx, 429, cut connections; a body that was cut goes on where it ended), and `asked` those
that it does not repeat: a conditional write, a deletion or a listing that was cut. After `CORPUSMILL_STORE_SECONDS` the request raises a
`StoreError`, which the engine treats as a hiccup. A permanent failure (a wrong key, no permission) is an `InputError`.
"""

import errno
import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corpusmill.pipeline.config import seconds_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.redirects import lasting_fault

Result = TypeVar("Result")

#: Seconds for which a failing request is repeated, and the variable that sets them.
PATIENCE, PATIENCE_VARIABLE = 60.0, "CORPUSMILL_STORE_SECONDS"
#: Seconds for which obstore repeats a request. No signal is heard meanwhile, so `asked` repeats it after that.
REPEATED = 4.0
#: Seconds after which a server that has never answered this process, and refuses connections, is given up: its address is probably wrong.
REFUSED = 3.0
#: Seconds before a request is repeated, and the longest pause; the pause doubles each time.
PAUSE, LONGEST_PAUSE = 0.1, 10.0
#: Seconds for a connection, of silence within an answer, and for a whole answer.
CONNECT_TIMEOUT, SILENCE, TIMEOUT = 10.0, 60.0, 600.0
#: The most seconds that a request waits because a server asks for it (Retry-After).
MOST_ASKED = 900.0
#: The protocols of stores. `memory` is the memory of this process, for tests.
PROTOCOLS = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")
#: HTTP status codes after which the same request may work.
BUSY = (408, 409, 429)
#: HTTP status codes of web servers that are overloaded or out of order for a while.
WEB_BUSY = (408, 425, 429, 500, 502, 503, 504)
#: Bytes up to which an object is read as a whole, bytes of the first range of a larger one, the longest range of one request, and the
#: number of parallel requests.
WHOLE, FIRST, RANGE, PARALLEL = 4 << 20, 64 << 10, 8 << 20, 4
#: Bytes of a part of a large object. S3 accepts at most 10,000 parts of an object, so 320 GB.
PART = 32 << 20
_STATUS, _CODE = re.compile(r"status code: (\d{3})"), re.compile(r"<Code>(\w+)</Code>")
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"')
_REFUSED, _ADDRESS = re.compile("Connection refused|Connect call failed|failed to lookup address"), re.compile(r"https?://([^/\s]+)")
_KEYLESS = re.compile("token request|169.254.169.254|Missing(SecretAccessKey|AccessKeyId)|MissingAccount|credential provider", re.I)
NO_KEYS = "there are no credentials for it"
_process = 0  # the process that has used a store
_connecting = threading.Lock()  # a client of AWS is 40 MB while it is made
_answered: set[str] = set()  # the stores and web servers that have answered this process


class StoreError(CorpusmillError, OSError):
    """A store or web server still failed after repeated requests. The message is one sentence with the URL and the cause. `pause`: the
    seconds after which the server wants to be asked again, where it says so."""

    def __init__(self, sentence: str, pause: float = 0.0):
        super().__init__(errno.EIO, sentence)
        self.sentence, self.pause = sentence, pause

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.sentence,)


def is_store(url: str) -> bool:
    """Whether a URL is that of an object store."""
    return url.partition("://")[0] in PROTOCOLS and "://" in url


def opened(url: str, timeout: float = TIMEOUT, repeated: float = REPEATED) -> tuple[Any, str]:
    """Returns obstore's store of a URL, and the path in it. `timeout`: seconds for an answer; `repeated`: seconds for which obstore itself
    repeats a failing request.

    Raises InputError if the URL can't be used here. obstore's threads stay in the process that has used it first, so its requests would
    hang in a fork of that process.
    """
    global _process
    protocol, _, rest = url.partition("://")
    if not is_store(url):
        raise InputError(f"{url}: this kind of URL can't be opened here (it is no object store).")
    require(url, "obstore")
    if _process not in (0, os.getpid()):
        raise InputError(f"{url}: this process was forked from one that has used a store; start it by `spawn` or `forkserver`.")
    _process = os.getpid()
    if protocol == "memory":
        return _memory(), rest.strip("/")
    place, _, path = rest.partition("/")
    base = f"{protocol}://{place}"
    try:
        with _connecting:
            return _connected(base, timeout, min(repeated, patience_of())), path.strip("/")
    except Exception as error:
        known = fault(base, error)
        if known is None or known is error:
            raise
        raise known from error


def patience_of() -> float:
    """Returns the seconds for which a failing request is repeated."""
    return seconds_of(PATIENCE_VARIABLE, PATIENCE, 0, 3600)


@lru_cache(1)
def _memory() -> Any:
    from obstore.store import MemoryStore

    return MemoryStore()


@lru_cache(64)
def _connected(base: str, timeout: float, repeated: float) -> Any:
    from obstore.store import from_url

    times = {"connect_timeout": min(CONNECT_TIMEOUT, timeout), "read_timeout": min(SILENCE, timeout), "timeout": timeout}
    backoff = {"init_backoff": timedelta(seconds=PAUSE), "max_backoff": timedelta(seconds=LONGEST_PAUSE), "base": 2}
    options: dict[str, Any] = {
        "client_options": {"allow_http": True} | {name: timedelta(seconds=value) for name, value in times.items()},
        "retry_config": {"max_retries": 1 << 30, "retry_timeout": timedelta(seconds=repeated), "backoff": backoff},
    }
    return from_url(base, **options, **(_of_aws(base) if base.startswith("s3") else {}))


def _of_aws(base: str) -> dict[str, Any]:
    """Returns address, region and keys from the environment, `~/.aws` or the machine's role, as other AWS programs find them."""
    require(base, "boto3")
    from boto3 import Session
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = Session()
        if session.get_credentials() is None:
            raise InputError(_no_keys(base, "none are found"))
        meta = session.client("s3").meta
        region = {"region": session.region_name} if session.region_name else {}
        return {"endpoint": meta.endpoint_url, "credential_provider": Boto3CredentialProvider(session), **region}
    except (BotoCoreError, ValueError) as error:
        raise InputError(_no_keys(base, " ".join(redact(str(error)).split()).rstrip("."))) from error


def _no_keys(url: str, why: str) -> str:
    variables = {"gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"}
    how = variables.get(url[:2], variables["az"] if url.startswith("ab") else "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    return f"{url}: {NO_KEYS} ({why}): set {how}."


def asked(url: str, request: Callable[[], Result], patience: float | None = None) -> Result:
    """Calls `request`, again after each temporary failure, and returns its result. `url` is for messages; `patience`: seconds, to which
    the pauses are added that the server asks for.

    Raises StoreError, InputError, FileNotFoundError, and any error that does not come from the store.
    """
    began, pause, (protocol, host, *_) = time.monotonic(), PAUSE, urlsplit(url)
    patience = patience_of() if patience is None else patience
    asked_for = 0.0
    while True:
        try:
            result = request()
            if result != [] and protocol + host not in _answered:  # so fsspec lists a folder where no server answers, too
                _answered.add(protocol + host)
            return result
        except Exception as error:
            seconds = time.monotonic() - began
            known = fault(url, error, seconds)
            if known is None or known is error:
                raise
            if not isinstance(known, StoreError) or seconds + pause >= patience:
                raise known from error
            if seconds >= REFUSED and protocol + host not in _answered and (refused := _REFUSED.search(_all_of(error))):
                at = found[1] if (found := _ADDRESS.search(str(error))) else host
                raise StoreError(f"{url}: no server answers at {at} ({refused[0]}); is it right?") from error
        if known.pause and (asked_for := asked_for + known.pause) <= MOST_ASKED:
            patience += known.pause
            time.sleep(known.pause)
            continue
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 2, LONGEST_PAUSE)


def _all_of(error: BaseException | None) -> str:
    """Returns what an error and its causes say: fsspec says that a file is not there where no server has answered."""
    return f"{error} {_all_of(error.__cause__)}" if error is not None else ""


def fault(url: str, error: Exception, seconds: float = 0.0) -> Exception | None:
    """Returns an error of a store or a web server as one of ours: StoreError if the same request may work a little later. None: it is
    another error."""
    if isinstance(error, CorpusmillError):
        return error
    text, code = str(error), _CODE.search(str(error))
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    if (code and code[1] in ("NoSuchBucket", "ContainerNotFound")) or "bucket does not exist" in text:
        return InputError(f"{url}: there is no such bucket.")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "BaseError" not in kinds:
        if isinstance(error, FileNotFoundError) and "Error performing" in text:
            return FileNotFoundError(errno.ENOENT, "no such object", url)
        if isinstance(error, ValueError) and "Could not parse path" in text:
            return InputError(f"{url}: a store can't have an object of this name.")
        return _web_fault(url, error, kinds, seconds)
    if _KEYLESS.search(text.split("Server returned")[0]):
        return InputError(_no_keys(url, _cause(str(error))))
    if kinds & {"PermissionDeniedError", "UnauthenticatedError"} or status in (401, 403):
        return InputError(
            f"{url}: the store refuses this ({code[1] if code else 'forbidden'}): check the credentials and what they may do."
        )
    if kinds & {"AlreadyExistsError", "PreconditionError"}:
        return None
    if "InvalidPathError" in kinds or (400 <= status < 500 and status not in BUSY) or "LOCATION" in text:
        return InputError(f"{url}: the store can't be asked for this ({_cause(str(error))}).")
    return StoreError(f"{url}: the store can't be reached or fails ({_cause(str(error))}; tried for {seconds:.0f} s).")


def _web_fault(url: str, error: Exception, kinds: set[str], seconds: float) -> Exception | None:
    """As `fault`, for the errors of aiohttp; by name, because fsspec says that a file is not there where no server has answered."""
    at: Any = error
    while at is not None:
        names = {kind.__name__ for kind in type(at).__mro__}
        if "ClientResponseError" in names and at.status in WEB_BUSY:
            answered = f"{at.status} {at.message}".rstrip()
            return StoreError(f"{url}: the server says {answered} (tried for {seconds:.0f} s).", asked_pause(at.headers or {}) or 0.0)
        if names & {"ClientConnectionError", "ClientPayloadError", "TimeoutError", "FSTimeoutError"}:
            if sentence := lasting_fault(url, error):
                return InputError(sentence)
            return StoreError(f"{url}: the server can't be reached or fails ({type(at).__name__}: {at}; tried for {seconds:.0f} s).")
        at = at.__cause__
    return None


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that a server asks to wait (`Retry-After`, a number or a date); None if there is no valid value."""
    given = headers.get("Retry-After", "")
    if given.isdecimal():
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _cause(text: str) -> str:
    """Returns a failure in a few words: the answer of the store, or how the connection ended."""
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return f"it answers {status[1]} {code[1] if code else ''}".rstrip()
    if causes := _CAUSE.findall(text):
        return str(causes[-1])
    return redact(" ".join(text.partition("\n")[0].split())[-200:]).rstrip(".")


class Stream(io.RawIOBase):
    """A seekable stream of `size` bytes; `position` is the next byte. Subclasses implement `read`."""

    def __init__(self, size: int):
        self.size = size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class RangeStream(Stream):
    """A remote file of `size` bytes as a stream, read in ranges. A file of at most `whole` bytes is fetched by one request. Subclasses
    implement `_some`.

    For a reader that goes on where it stopped, it fetches ahead, doubling the amount each time: a whole crawl file takes few requests, and
    some columns of a shard take few bytes.
    """

    def __init__(self, url: str, size: int, whole: int = WHOLE):
        super().__init__(size)
        self.name, self._whole = url, whole
        self._begin, self._held = 0, b""  # the range that was read last
        self._ahead = FIRST

    def read(self, size: int | None = -1) -> bytes:
        end = self.size if size is None or size < 0 else min(self.position + size, self.size)
        if end <= self.position:
            return b""
        begin, held = self.position, b""
        if self._begin <= begin < self._begin + len(self._held):
            held = self._held[begin - self._begin : end - self._begin]
            begin += len(held)
        self.position = end
        return held + self._fetch(begin, end) if begin < end else held

    def readall(self) -> bytes:
        return self.read()

    def _fetch(self, begin: int, end: int) -> bytes:
        """Returns the bytes of a range that is not in memory. Bytes beyond it that were fetched are kept for the next read."""
        if self.size <= self._whole:
            self._begin, self._held = 0, self.ranges(0, self.size)
            return self._held[begin:end]
        if end - begin >= RANGE:
            self._begin, self._held = end, b""
            return self.ranges(begin, end)
        goes_on = begin == self._begin + len(self._held)
        self._ahead = min(self._ahead * 2, RANGE) if goes_on else FIRST
        self._begin, self._held = begin, self.ranges(begin, min(self.size, max(end, begin + self._ahead)))
        return self._held[: end - begin]

    def ranges(self, begin: int, end: int) -> bytes:
        """Returns bytes of the file, by requests of at most `RANGE` bytes, some of them in parallel."""
        pieces: list[Any] = []
        for first in range(begin, end, PARALLEL * RANGE):
            pieces += self._some(first, min(first + PARALLEL * RANGE, end))
        content = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        if len(content) < end - begin:
            raise StoreError(f"{self.name}: it has only {begin + len(content):,} bytes now; was it replaced?")
        return content

    def _some(self, begin: int, end: int) -> list[Any]:
        """Returns the bytes of a range of at most `PARALLEL * RANGE` bytes, in pieces."""
        raise NotImplementedError


class StoreFile(RangeStream):
    """An object of a store as a readable stream. `size` in bytes; None: the store is asked. Raises FileNotFoundError."""

    def __init__(self, url: str, size: int | None = None, whole: int = WHOLE):
        self._store, self._path = opened(url)
        super().__init__(url, int(asked(url, lambda: self._store.head(self._path))["size"]) if size is None else size, whole)

    def _some(self, begin: int, end: int) -> list[Any]:
        starts = list(range(begin, end, RANGE))
        ends = [min(at + RANGE, end) for at in starts]
        return asked(self.name, lambda: list(self._store.get_ranges(self._path, starts=starts, ends=ends, coalesce=0)))


class StoreWriter(io.RawIOBase):
    """A binary stream into an object."""

    def __init__(self, url: str, upload: Any):
        self.name, self._upload = url, upload
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        asked(self.name, lambda: self._upload.write(view), 0)
        self._written += len(view)
        return len(view)


@contextmanager
def written(url: str) -> Iterator[StoreWriter]:
    """Yields a stream into an object, which appears at the end of the block. Nothing is left of it where the block raises."""
    store, path = opened(url, repeated=patience_of())
    import obstore
    import obstore.exceptions

    upload = obstore.open_writer(store, path, buffer_size=PART, max_concurrency=PARALLEL)
    writer = StoreWriter(url, upload)
    try:
        with upload:
            yield writer
    except (obstore.exceptions.BaseError, FileNotFoundError) as error:
        raise fault(url, error) or error from error
