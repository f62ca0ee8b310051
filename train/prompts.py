"""The prompts of a file: a line each, or the field `prompt` of each row of a JSONL, JSON or Parquet file."""

from corpusmill.pipeline.errors import InputError
from corpusmill.train.conversation import read_text
from corpusmill.train.records import FORMATS, read_lines, read_records


def read_prompts(path: str) -> list[str]:
    """All prompts of a file; empty lines of a text file are none. InputError names the file and the line."""
    if not path.removesuffix(".gz").removesuffix(".zst").endswith(FORMATS):
        return [line for line in read_lines(path) if line.strip()]
    found = []
    for place, row in read_records(path):
        if "prompt" not in row:
            raise InputError(f"{place}: has no `prompt`.")
        found.append(read_text(place, row, "prompt"))
    return found
