"""Fuzzes a published evaluation set in any kind of file: rows that are objects, or one sentence."""

import io
import json
import zipfile

import pyarrow as pa
from fuzzing import scratch

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.formats.evaluation_sets import read_set

ROWS = [{"question": "What?", "answer": ["a", "b"], "n": 1}, {"question": "é"}]


def seeds() -> list[bytes]:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    archive, stream = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("../../a.jsonl", "/etc/b.json"):
            file.writestr(zipfile.ZipInfo(name), lines)
    table = pa.table({"question": ["What?"], "n": [1]})
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q"}]}]}]}
    return [lines, json.dumps({"data": ROWS}).encode(), json.dumps(squad).encode(), archive.getvalue(), stream.getvalue()]


def fuzz(data: bytes) -> None:
    path = scratch() / "set"
    path.write_bytes(data)
    try:
        for _, rows in read_set(str(path)):
            assert rows and all(isinstance(row, dict) for row in rows)
    except InputError as error:
        assert str(path) in str(error)
