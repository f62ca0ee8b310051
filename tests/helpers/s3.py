"""A real S3 server for tests: moto's, in a process of its own, behind a proxy that counts requests and causes faults (s3_proxy.py).

Clients find it by the environment, as users' programs do: `conftest.py` calls `announce()` before anything starts, which names a
configuration file for this session; the fixture `s3` starts server and proxy and writes their address there. So processes that started
earlier (Ray's) find it too, and none ever asks a real AWS or reads somebody's own keys.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from trees import VOLATILE

HERE = Path(__file__).parent
KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the example keys of AWS's own documentation
#: Folders and files of a run on a store that differ between equal runs (pipeline/watch/log.py).
GROWING = ("log", "metrics", "errors")


def announce() -> Path:
    """Names the file in which this session's clients find the server (empty until it runs); the folder is removed with the process."""
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    atexit.register(shutil.rmtree, folder, True)  # no fixture: pytest-xdist's controller runs none
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_CONFIG_FILE": str(folder / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    return folder


class S3:
    """The running server. `environment` is for processes that do not inherit this one's."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.start()
        self.proxy = _started("s3_proxy.py", str(self.port))
        assert self.proxy.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self.proxy.stdout.readline())}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        config = f"[default]\nregion = us-east-1\nendpoint_url = {self.endpoint}\n"
        Path(os.environ["AWS_CONFIG_FILE"]).write_text(config)
        keys = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(keys)

    # ---- the server ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the server after a kill: at the same address, and empty."""
        self.server = _started("s3_server.py", str(self.port))
        assert self.server.stdout is not None and self.server.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        """Kills the server at once; clients that connect to the proxy are cut off."""
        _end(self.server)

    def close(self) -> None:
        _end(self.server)
        _end(self.proxy)

    # ---- its content; these calls bypass the proxy, so they are neither counted nor disturbed -------------

    @cached_property
    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def bucket(self, name: str) -> str:
        """Makes a new bucket, empty even if one of this name was there; returns its URL."""
        with contextlib.suppress(self.client.exceptions.BucketAlreadyOwnedByYou):
            self.client.create_bucket(Bucket=name)
        for upload in self.uploads(name):
            self.client.abort_multipart_upload(Bucket=name, Key=upload[0], UploadId=upload[1])
        for key in self.keys(f"s3://{name}"):
            self.client.delete_object(Bucket=name, Key=key)
        return f"s3://{name}"

    def keys(self, url: str) -> list[str]:
        """Returns the names of all objects below a URL, relative to it."""
        name, _, prefix = url.removeprefix("s3://").partition("/")
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
        return [found["Key"].removeprefix(prefix) for page in pages for found in page.get("Contents", [])]

    def get(self, url: str) -> bytes:
        name, _, key = url.removeprefix("s3://").partition("/")
        return self.client.get_object(Bucket=name, Key=key)["Body"].read()

    def put(self, url: str, content: bytes) -> None:
        name, _, key = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=name, Key=key, Body=content)

    def upload(self, folder: Path, url: str) -> None:
        """Copies a local folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def download(self, url: str, folder: Path) -> Path:
        for key in self.keys(url):
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.get(f"{url}/{key}"))
        return folder

    def tree(self, url: str) -> dict[str, str]:
        """Returns the same as `trees.tree` does for a local folder: content that must be equal in equal runs."""
        from corpusmill.pipeline.manifest import Manifest
        from corpusmill.pipeline.storage import Storage

        found = {}
        for key in self.keys(url):
            stage, _, rest = key.partition("/")
            if rest.startswith("manifest/"):
                manifest = f"{stage}/manifest.jsonl"
                if manifest not in found:
                    rows = Manifest(Storage(f"{url}/{stage}"), read_only=True).rows()
                    found[manifest] = hashlib.sha256(repr(rows).encode()).hexdigest()
            elif key not in VOLATILE and stage not in GROWING and not rest.startswith(("checkpoints/", "logs/")):
                found[key] = hashlib.sha256(self.get(f"{url}/{key}")).hexdigest()
        return found

    def uploads(self, bucket: str) -> list[tuple[str, str]]:
        """Returns key and id of multipart uploads that are neither complete nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=bucket)
        return [(upload["Key"], upload["UploadId"]) for upload in found.get("Uploads", [])]

    # ---- faults and counts --------------------------------------------------------------------------

    @contextlib.contextmanager
    def faults(self, only: str = "", seed: int = 0, seconds: float = 0.2, **rates: float) -> Iterator[None]:
        """Causes faults in a share of the requests within the block: `faults(error_500=0.1, cut_response=0.05)`.

        Kinds: error_500, error_503, error_429, error_403 (answers), cut_upload, reset (not done at all), lost (done, without an answer),
        cut_response, truncate, delay (of `seconds`). `only`: a regular expression that "METHOD /bucket/key" has to match.
        """
        named = {name.removeprefix("error_"): rate for name, rate in rates.items()}
        self._tell({"rates": named, "only": only, "seed": seed, "seconds": seconds})
        try:
            yield
        finally:
            self._tell({"forget": False})

    def counts(self) -> Counter[str]:
        """Returns counts since the last `forget` or `faults`: `requests`, by method, `faults`, by fault, `bytes_up`, `bytes_down`."""
        return Counter(self._tell(None)["counts"])

    def log(self) -> list[str]:
        """Returns the same requests, each as "METHOD /bucket/key?query"."""
        return list(self._tell(None)["log"])

    def forget(self) -> None:
        """Resets the counts."""
        self._tell({})

    def _tell(self, wanted: dict[str, Any] | None) -> dict[str, Any]:
        data = None if wanted is None else json.dumps(wanted).encode()
        request = urllib.request.Request(f"{self.endpoint}/_proxy", data, method="GET" if data is None else "PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def _started(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,  # moto logs each request
        start_new_session=True,  # Ctrl-C is meant for the parent; this server ends with its parent
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.close()
