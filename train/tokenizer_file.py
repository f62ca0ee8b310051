"""The run's `tokenizer.json`, as every training stage takes it over."""

import hashlib

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

NAME = "tokenizer.json"


def read_tokenizer(folder: Storage) -> tuple[bytes, str]:
    """The file in this folder and its sha256 (hex), by which token shards name the tokenizer that made them."""
    try:
        content = folder.read_bytes(NAME)
    except FileNotFoundError as error:
        raise InputError(f"{folder.path(NAME)}: no such file; the stage tokenizer makes it.") from error
    except OSError as error:
        raise InputError(f"{folder.path(NAME)}: can't be read ({error.strerror or error}).") from error
    return content, hashlib.sha256(content).hexdigest()
