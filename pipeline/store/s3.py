"""A folder in a bucket, with no more requests than it needs: s3fs asks twice for what is not there, and for a size before it reads."""

from typing import Any

from corpusmill.pipeline.store.ask import S3, asked
from corpusmill.pipeline.store.file import StoreFile
from corpusmill.pipeline.store.folder import Store

#: Bytes that opening an object brings, from its end: all of a small one, of a larger one what Parquet and Arrow files are read by.
TAIL = 1 << 20


class S3Store(Store):
    def open_read(self, name: str) -> StoreFile:
        url, path = self._url(name), self.path(name)
        size, tail = asked(url, lambda: self._tail(path))
        return StoreFile(self.fs, path, url, size, tail)

    def size(self, name: str) -> int:
        bucket, key, _ = self.fs.split_path(self.path(name))
        try:
            return int(self._asked(name, lambda fs, _: fs.call_s3("head_object", Bucket=bucket, Key=key))["ContentLength"])
        except FileNotFoundError:
            return -1

    def find(self, folder: str = "", below: bool = True) -> dict[str, dict[str, Any]]:
        bucket, key, _ = self.fs.split_path(self.path(folder))
        root = self.fs.split_path(self.path(""))[1]
        start = len(root) + 1 if root else 0
        wanted: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""} | ({} if below else {"Delimiter": "/"})
        found: dict[str, dict[str, Any]] = {}
        while True:
            answer = self._asked(folder, lambda fs, _: fs.call_s3("list_objects_v2", **wanted))
            for said in answer.get("Contents", []):
                if not said["Key"].endswith("/"):  # what consoles make of a folder
                    found[said["Key"][start:]] = {"size": said["Size"], "LastModified": said["LastModified"]}
            if not answer.get("IsTruncated"):
                return found
            wanted["ContinuationToken"] = answer["NextContinuationToken"]

    def _tail(self, path: str) -> tuple[int, bytes]:
        """The size of an object and its last bytes."""
        from fsspec.asyn import sync

        try:
            found: tuple[int, bytes] = sync(self.fs.loop, self._get_tail, path)
        except OSError as error:
            if _status(error) == 416:  # there is no last byte of nothing
                return 0, b""
            raise
        return found

    async def _get_tail(self, path: str) -> tuple[int, bytes]:
        bucket, key, _ = self.fs.split_path(path)
        answer = await self.fs._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes=-{TAIL}")
        async with answer["Body"] as body:
            content = await body.read()
        size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else len(content)
        return size, content


def _status(error: OSError) -> int:
    response = getattr(error.__cause__, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def open_store(url: str) -> Store:
    """The folder of a URL."""
    return S3Store(url) if url.partition("://")[0] in S3 else Store(url)
