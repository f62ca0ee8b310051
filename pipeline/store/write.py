"""Writing an object of a store: it appears under its name when its upload is complete, and not before.

What fits one part goes by one request. More goes by a multipart upload, of which each part is sent again where it was cut; where the writer
fails it is aborted, so nothing is left. What a killed process left is found by `abort_uploads` when the next run begins.
"""

import contextlib
import io
from typing import Any

from corpusmill.pipeline.store.ask import asked, is_s3

#: Bytes of a part: S3 takes at most 10,000 parts of an object, so 320 GB, and at least 5 MiB a part.
PART = 32 << 20


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
        """The object is there, whole, when this returns."""
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


def abort_uploads(fs: Any, path: str, url: str) -> int:
    """Aborts multipart uploads below a folder that were neither completed nor aborted; how many there were. Only S3 has them."""
    if not is_s3(fs):
        return 0
    bucket, key, _ = fs.split_path(path)

    def call(method: str, **options: Any) -> Any:
        return asked(url, lambda: fs.call_s3(method, Bucket=bucket, **options))

    wanted: dict[str, Any] = {"Prefix": f"{key}/" if key else ""}
    found: list[dict[str, str]] = []
    while True:
        answer = call("list_multipart_uploads", **wanted)
        found += answer.get("Uploads", [])
        if not answer.get("IsTruncated"):
            break
        wanted |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer.get("NextUploadIdMarker", "")}
    for upload in found:
        with contextlib.suppress(FileNotFoundError):
            call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
    return len(found)
