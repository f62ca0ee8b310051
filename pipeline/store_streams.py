"""Objects of a store as binary streams: one that is read by ranges, one that is written and appears when it is complete.

A range that was cut is asked for again by itself, so a long read goes on where it was. A small object comes with one request. Of a large
one what is read comes, and more and more ahead of a reader that goes on where it stopped: few requests do for a whole crawl file, and few
bytes for some columns of a shard.

A written object that fits one part is sent by one request. A larger one is sent as a multipart upload, of which each part is sent again
where it was cut; where the writer fails it is aborted, so nothing is left. `Store.abort_uploads` finds what a killed process left.
"""

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.store_requests import Truncated, asked, is_s3

#: Bytes of an object that is read at once, and of the first range of a larger one.
WHOLE, FIRST = 4 << 20, 64 << 10
#: The longest range of one request, and how many are asked for side by side.
RANGE, BESIDE = 8 << 20, 4
#: Bytes of a part: S3 takes at most 10,000 parts of an object, so 320 GB, and at least 5 MiB a part.
PART = 32 << 20


class Stream(io.RawIOBase):
    """Bytes from 0 to `size`, of which `position` is the next. A subclass has `read`."""

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
    """`size` (bytes) is asked for where it is not known. FileNotFoundError where there is no such object."""

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
        """The bytes of a range that is not held; what is read beyond it is held for the next."""
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
        """Bytes of the object, by requests of at most `RANGE`, of which some go side by side; those that fail are made again."""
        places = range(begin, end, RANGE)
        if len(places) == 1:
            return self._range(begin, end)
        with ThreadPoolExecutor(BESIDE) as pool:
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
    """A binary stream into an object. Nothing is published until `publish`; `discard` gives it up."""

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
            room = PART - self._buffer.tell()
            self._buffer.write(view[:room])
            view = view[room:]
            if self._buffer.tell() == PART:
                self._send()
        self._written += size
        return size

    def publish(self) -> None:
        """The whole object is there when this returns."""
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
        except FileNotFoundError:  # no such upload: an earlier try was carried out, though its answer never came
            if asked(self.url, lambda: self.fs.info(self.path))["size"] != size:
                raise

    def abort(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # aborted or complete already
            self._call("abort_multipart_upload", UploadId=self.id)


class _Streamed:
    """A large object of a store other than S3: by fsspec's own writer, which publishes when it is closed."""

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
