"""Objects of a store as binary streams: `StoreFile` reads an object by ranges, `StoreWriter` writes one that appears when it is complete.

A small object is read with one request. A large one is read by ranges, and a range that fails is requested again, alone. For a reader
that goes on where it stopped, the reader fetches ahead, doubling the amount each time. So a whole crawl file takes few requests, and some
columns of a shard take few bytes.

An object that fits one part is written with one request. A larger one is a multipart upload; a part that fails is sent again. Where the
writer fails, the upload is aborted, so that nothing is left. `Store.abort_uploads` removes the uploads of killed processes.
"""

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.store_requests import Truncated, asked, is_s3

#: Bytes up to which an object is read as a whole, and bytes of the first range of a larger one.
WHOLE, FIRST = 4 << 20, 64 << 10
#: The longest range of one request, and the number of parallel requests.
RANGE, PARALLEL = 8 << 20, 4
#: Bytes of a part. S3 accepts at most 10,000 parts of an object (so 320 GB) of at least 5 MiB each.
PART = 32 << 20


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


class StoreFile(Stream):
    """An object of a store as a readable stream. `size` in bytes; None: the store is asked. Raises FileNotFoundError."""

    def __init__(self, fs: Any, path: str, url: str, size: int | None = None):
        super().__init__(_size(fs, path, url) if size is None else size)
        self.fs, self.path_in_store, self.name = fs, path, url
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
        if self.size <= WHOLE:
            self._begin, self._held = 0, self.ranges(0, self.size)
        elif end - begin >= RANGE:
            self._begin, self._held = end, b""
            return self.ranges(begin, end)
        else:
            goes_on = begin == self._begin + len(self._held)
            self._ahead = min(self._ahead * 2, RANGE) if goes_on else FIRST
            self._begin, self._held = begin, self.ranges(begin, min(self.size, max(end, begin + self._ahead)))
        return self._held[begin - self._begin : end - self._begin]

    def ranges(self, begin: int, end: int) -> bytes:
        """Returns bytes of the object, by requests of at most `RANGE` bytes, some of them in parallel. Failed requests are repeated."""
        places = range(begin, end, RANGE)
        if len(places) == 1:
            return self._range(begin, end)
        with ThreadPoolExecutor(PARALLEL) as pool:
            return b"".join(pool.map(lambda at: self._range(at, min(at + RANGE, end)), places))

    def _range(self, begin: int, end: int) -> bytes:
        return asked(self.name, lambda: self._one(begin, end))

    def _one(self, begin: int, end: int) -> bytes:
        content = self.fs.cat_file(self.path_in_store, start=begin, end=end)
        if len(content) > end - begin:
            raise InputError(f"{self.name}: the server gives whole files only, so it can't be read in pieces; download it first.")
        if len(content) < end - begin:
            raise Truncated(f"{len(content):,} of {end - begin:,} bytes came")
        return bytes(content)


def _size(fs: Any, path: str, url: str) -> int:
    found = asked(url, lambda: fs.info(path))
    if found["type"] == "directory":
        raise FileNotFoundError(path)
    return int(found["size"])


class StoreWriter(io.RawIOBase):
    """A binary stream into an object. The object appears when `publish` is called; `discard` drops what was written."""

    def __init__(self, fs: Any, path: str, url: str):
        self.fs, self.path_in_store, self.name = fs, path, url
        self._buffer = io.BytesIO()
        self._upload: _Upload | _Streamed | None = None
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        size = len(view)
        while view:  # part by part, so that a large content is not copied as a whole
            free = PART - self._buffer.tell()
            self._buffer.write(view[:free])
            view = view[free:]
            if self._buffer.tell() == PART:
                self._send()
        self._written += size
        return size

    def publish(self) -> None:
        """Completes the object, which is in the store when this returns."""
        if self._upload is None:
            content = self._buffer.getvalue()
            asked(self.name, lambda: self.fs.pipe_file(self.path_in_store, content))
        else:
            if self._buffer.tell():
                self._send()
            self._upload.complete(self._written)

    def discard(self) -> None:
        if self._upload is not None:
            self._upload.abort()

    def _send(self) -> None:
        if self._upload is None:
            self._upload = (_Upload if is_s3(self.fs) else _Streamed)(self.fs, self.path_in_store, self.name)
        self._upload.send(self._buffer.getvalue())
        self._buffer = io.BytesIO()


class _Upload:
    """A multipart upload to S3."""

    def __init__(self, fs: Any, path: str, url: str):
        self.fs, self.url, self.path = fs, url, path
        self.bucket, self.key, _ = fs.split_path(path)
        self.parts: list[dict[str, Any]] = []
        self.id = self._call("create_multipart_upload")["UploadId"]

    def _call(self, method: str, **options: Any) -> Any:
        return asked(self.url, lambda: self.fs.call_s3(method, Bucket=self.bucket, Key=self.key, **options))

    def send(self, content: bytes) -> None:
        number = len(self.parts) + 1
        tag = self._call("upload_part", UploadId=self.id, PartNumber=number, Body=content)["ETag"]
        self.parts.append({"PartNumber": number, "ETag": tag})

    def complete(self, size: int) -> None:
        try:
            self._call("complete_multipart_upload", UploadId=self.id, MultipartUpload={"Parts": self.parts})
        except FileNotFoundError:  # no such upload: an earlier try has succeeded, and only its answer was lost
            if asked(self.url, lambda: self.fs.info(self.path))["size"] != size:
                raise

    def abort(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # aborted or complete already
            self._call("abort_multipart_upload", UploadId=self.id)


class _Streamed:
    """A large object of a store other than S3, written by fsspec's own writer, which publishes it when closed."""

    def __init__(self, fs: Any, path: str, url: str):
        self.url = url
        self.file = asked(url, lambda: fs.open(path, "wb"))

    def send(self, content: bytes) -> None:
        self.file.write(content)

    def complete(self, size: int) -> None:
        self.file.close()

    def abort(self) -> None:
        self.file.discard()
        self.file.closed = True
