"""Runs whose files a test changes on purpose."""

import re

from corpusmill.pipeline.storage import Storage


def forget_hashes(run: Storage, *stages: str) -> None:
    """Removes the hashes by which a stage's files are compared when another reads them: the file of a test is then read as it is."""
    for stage in stages:
        path = f"{stage}/manifest.jsonl"
        run.write_bytes(path, re.sub(rb'"xxh3": ?"\w*"', b'"xxh3":""', run.read_bytes(path)))
