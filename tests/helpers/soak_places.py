"""Places of the soak's runs: a local folder, or a bucket of a real S3 server with faults. Both return the same information on a run."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3 as servers
from killing import in_child
from trees import leftovers, tree
from whole_run import ids

from corpusmill.report.whole.verify import verify

BUCKET = "soak"
#: Shares of all requests that the store answers with a fault while runs are killed.
FAULTS = {"error_500": 0.01, "error_503": 0.01, "cut_response": 0.005, "cut_upload": 0.005, "reset": 0.005, "lost": 0.005}


@dataclass
class Found:
    """Data by which runs are compared: content hashes, files left from unfinished work, documents that came into each stage, and
    the findings of `corpusmill verify`.
    """

    tree: dict[str, str]
    rest: set[str]
    documents: dict[str, Counter[str]]
    wrong: list[str]


def look(run: Path) -> Found:
    """Inspects a run in a local folder."""
    return Found(tree(run), leftovers(run), ids(run), _verified(str(run)))


def _verified(run: str) -> list[str]:
    return [fault for check in verify(run) for fault in check.faults]


class Disk:
    """A local folder, which also holds the crawl."""

    pause = 0.01

    def __init__(self, folder: Path):
        self.folder, self.run, self.crawl = folder, str(folder / "run"), str(folder / "crawl")

    def bring(self) -> None:
        """Does nothing: the crawl is already there."""

    def clear(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)

    def progress(self) -> dict[str, Any]:
        """Returns the run's progress.json; empty before the run has written it."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(Path(self.run, "progress.json").read_text()))
        return {}

    def look(self) -> Found:
        return look(Path(self.run))

    def copy(self, folder: Path) -> None:
        if Path(self.run).is_dir():
            shutil.copytree(self.run, folder, dirs_exist_ok=True)

    @contextmanager
    def unwell(self) -> Iterator[None]:
        """Disturbs runs within the block, if this place can."""
        yield

    def said(self) -> str:
        return ""

    def close(self) -> None:
        pass


class Store:
    """A bucket. This process forks drivers, so it uses boto3, which has no threads; calls that need the project's own client run
    in a child process.
    """

    pause = 0.05

    def __init__(self, folder: Path):
        self.folder, self.run, self.crawl = folder, f"s3://{BUCKET}/run", f"s3://{BUCKET}/crawl"
        self.s3 = servers.S3()
        self.s3.bucket(BUCKET)
        self.requests: Counter[str] = Counter()

    def bring(self) -> None:
        self.s3.upload(self.folder / "crawl", self.crawl)

    def clear(self) -> None:
        for key in self.s3.keys(self.run):
            self.s3.client.delete_object(Bucket=BUCKET, Key=f"run/{key}")
        for key, upload in self.s3.uploads(BUCKET):
            self.s3.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)

    def progress(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError, self.s3.client.exceptions.NoSuchKey):
            return dict(json.loads(self.s3.get(f"{self.run}/progress.json")))
        return {}

    def look(self) -> Found:
        answer = self.folder / "found.json"
        assert os.waitstatus_to_exitcode(in_child(self._look, answer)) == 0
        said = json.loads(answer.read_text())
        return Found(said["tree"], set(said["rest"]), {stage: Counter(of) for stage, of in said["documents"].items()}, said["wrong"])

    def _look(self, answer: Path) -> None:
        mirror = self.folder / "mirror"
        shutil.rmtree(mirror, ignore_errors=True)
        self.s3.download(self.run, mirror)
        rest = leftovers(mirror) | {f"{key}, an upload that is not complete" for key, _ in self.s3.uploads(BUCKET)}
        said = {"tree": self.s3.tree(self.run), "rest": sorted(rest), "documents": ids(mirror), "wrong": _verified(self.run)}
        answer.write_text(json.dumps(said))

    def copy(self, folder: Path) -> None:
        self.s3.download(self.run, folder)

    @contextmanager
    def unwell(self) -> Iterator[None]:
        with self.s3.faults(**FAULTS):
            try:
                yield
            finally:
                self.requests += self.s3.counts()

    def said(self) -> str:
        return f", requests to the store {self.requests['requests']:,}, of which {self.requests['faults']:,} failed"

    def close(self) -> None:
        self.s3.close()
