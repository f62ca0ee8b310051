"""The run's `tokenizer.json`, as every training stage takes it over."""

import hashlib
from pathlib import Path

from corpusmill.pipeline.errors import InputError


def read_tokenizer(path: Path) -> tuple[bytes, str]:
    """The file and its sha256 (hex), by which token shards name the tokenizer that made them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; the stage tokenizer makes it.") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    return content, hashlib.sha256(content).hexdigest()
