"""Opens the stores that fsspec supports, and repeats requests that fail.

A request with a temporary failure (an answer of 500, 503 or 429, a cut connection, a timeout) is repeated after a pause. The pause
doubles each time and has a random factor, so that many workers do not come back at once. After `CORPUSMILL_STORE_SECONDS`, or three
seconds of refused connections to a web server that has never answered, the request raises a `StoreError`, which the engine treats as a
hiccup. A permanent failure (a wrong key, no permission) is an `InputError`. Libraries
do not repeat requests themselves: their tries would multiply ours.
"""

import errno
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from corpusmill.pipeline.config import seconds_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.redirects import checked_redirects, lasting_fault

Result = TypeVar("Result")

#: The hosts of web servers that have answered this process.
_answered: set[str] = set()

#: Seconds for which a failing request is repeated, the variable that sets them, and the least number of requests.
PATIENCE, PATIENCE_VARIABLE, TRIES = 60.0, "CORPUSMILL_STORE_SECONDS", 3
#: Requests to a web server that refuses connections and has never answered this process; its address is probably wrong.
REFUSED_TRIES = 6
#: Seconds before the second request, and the longest pause.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
#: HTTP status codes and S3's error codes after which the same request may work.
BUSY_STATUS = (408, 429, 500, 502, 503, 504)
BUSY_CODES = (
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeTooSkewed", "IncompleteBody", "ThrottlingException",
)  # fmt: skip
#: Errors of libraries for connections that were cut, refused or silent. By name, because not every library is installed.
CUT = frozenset(
    ["HTTPClientError", "ConnectionError", "ResponseStreamingError", "IncompleteReadError", "ResponseParserError", "ClientConnectionError",
     "ClientPayloadError", "ServerDisconnectedError", "FSTimeoutError", "TimeoutError", "IncompleteRead", "Truncated"]
)  # fmt: skip
#: Errors of libraries for missing or incomplete credentials.
NO_KEYS = frozenset(
    ["NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "TokenRetrievalError", "SSOError"]
)
S3 = ("s3", "s3a")
#: Listings are not cached, because a run changes the folders that it lists. `asked` repeats requests to S3, so its library does not.
UNCACHED: dict[str, Any] = {"use_listings_cache": False}
S3_CONFIG: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
#: For a library that opens files itself (DuckDB), whose requests `asked` can't repeat.
S3_CONFIG_ALONE: dict[str, Any] = S3_CONFIG | {"retries": {"total_max_attempts": 8, "mode": "standard"}}


class StoreError(CorpusmillError, OSError):
    """A store still failed after repeated requests. The message is one sentence with the URL and the cause."""

    def __init__(self, sentence: str):
        super().__init__(errno.EIO, sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.sentence,)


class Truncated(OSError):
    """A store sent fewer bytes than were requested."""


def filesystem(url: str, alone: bool = False) -> tuple[Any, str]:
    """Returns the fsspec filesystem of a URL and the path in it. Raises InputError if the protocol can't be used.

    `alone`: for a library that opens files itself, so that the filesystem has to repeat requests.
    """
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    options: dict[str, Any] = {}
    if protocol in S3:
        require(url, "s3fs")
        options = {**UNCACHED, "max_concurrency": 1, "config_kwargs": S3_CONFIG_ALONE if alone else S3_CONFIG}
    elif protocol in ("gs", "gcs", "abfs", "abfss", "az"):
        options = dict(UNCACHED)
    elif protocol in ("http", "https"):
        options = {"client_kwargs": checked_redirects()}
    try:
        fs, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:  # no library for the protocol, or no such protocol
        raise InputError(f"{url}: this kind of URL can't be opened here ({error}).") from error
    if protocol in S3 and not alone:
        fs.retries = 1
    return fs, path


def is_s3(fs: Any) -> bool:
    """Whether a filesystem is that of s3fs."""
    return bool(set(S3) & {fs.protocol} if isinstance(fs.protocol, str) else set(S3) & set(fs.protocol))


def asked(url: str, request: Callable[[], Result], patience: float | None = None) -> Result:
    """Calls `request`, again after each temporary failure, and returns its result. `url` is for messages; `patience`: seconds.

    Raises StoreError, InputError, FileNotFoundError, and any error that does not come from the store.
    """
    began, tries, host = time.monotonic(), 0, urlsplit(url).netloc
    patience = seconds_of(PATIENCE_VARIABLE, PATIENCE, 0, 3600) if patience is None else patience
    while True:
        try:
            result = request()
            if result != []:  # so fsspec lists a folder where no server answers, too
                _answered.add(host)
            return result
        except Exception as error:
            if isinstance(error, StoreError):
                raise
            if not passing(error):
                if sentence := refusal(error):
                    raise InputError(f"{url}: {sentence}") from error
                raise
            tries += 1
            if tries >= TRIES and (sentence := lasting_fault(url, error)):
                raise InputError(sentence) from error
            refused = any(getattr(at, "errno", None) == errno.ECONNREFUSED for at in _causes(error)) and host not in _answered
            if refused and tries >= REFUSED_TRIES:
                raise StoreError(f"{url}: no server answers at {host}; is it right? ({tries} connections were refused.)") from error
            if tries >= TRIES and time.monotonic() - began >= patience:
                raise StoreError(f"{url}: the store can't be reached or fails ({_cause(error)}; {tries} tries).") from error
        pause = min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE)
        time.sleep(pause * random.uniform(0.5, 1.5))


def passing(error: BaseException) -> bool:
    """Whether an error is temporary: the same request may work a little later."""
    for at in _causes(error):
        response = getattr(at, "response", None)
        if isinstance(response, dict):  # an error of botocore: the store has answered, so its answer decides
            return _status(response) in BUSY_STATUS or _code(response) in BUSY_CODES
        if CUT & {kind.__name__ for kind in type(at).__mro__}:
            return True
    return isinstance(error, OSError) and error.errno in (errno.EREMOTEIO, errno.EBUSY)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes: fsspec says that a file is not there where no server has answered."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__


def error_code(error: BaseException) -> str:
    """Returns S3's code of an error that s3fs has turned into an OSError; empty where S3 has not answered."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    return _code(response) if isinstance(response, dict) else ""


def refusal(error: BaseException) -> str | None:
    """Returns, without secrets, why a store refuses a request; None if the error is not a refusal."""
    names, code = {kind.__name__ for kind in type(error).__mro__}, error_code(error)
    if code == "NoSuchBucket":
        return "there is no such bucket."
    if isinstance(error, FileNotFoundError):
        return None
    if names & NO_KEYS:
        return f"there are no credentials for it ({type(error).__name__}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    if isinstance(error, PermissionError):
        return f"the store refuses this ({code or 'forbidden'}): check the credentials and what they may do."
    if "BotoCoreError" in names:  # the request was not sent: no region, an invalid name, a bad configuration file
        return f"the store can't be asked for this ({' '.join(redact(str(error)).split())})."
    if isinstance(error, OSError) and code:
        return f"the store refuses this ({code}: {' '.join(str(error.strerror or error).split())})."
    return None


def _cause(error: BaseException) -> str:
    """Returns a failure in a few words: the answer of the store, or how the connection ended."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        status, code = _status(response), _code(response)
        return f"it answers {status} {code}".rstrip() if code != str(status) else f"it answers {status}"
    *_, first = _causes(error)
    return f"{type(first).__name__}: {' '.join(str(first).split())}".rstrip(": .")


def _status(response: dict[str, Any]) -> int:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if isinstance(status, int) else 0


def _code(response: dict[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))
