"""The run's `tokenizer.json`, as every training stage takes it over."""

import hashlib
import json

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

NAME = "tokenizer.json"
#: Folders of a run whose tokenizer its tokens may have been made by.
BEFORE = ("tokenizer", "pretrain/model")


def read_tokenizer(folder: Storage) -> tuple[bytes, str]:
    """The file in this folder and its sha256 (hex), by which token shards name the tokenizer that made them."""
    try:
        content = folder.read_bytes(NAME)
    except FileNotFoundError as error:
        raise InputError(f"{folder.path(NAME)}: no such file; the stage tokenizer makes it.") from error
    except OSError as error:
        raise InputError(f"{folder.path(NAME)}: can't be read ({error.strerror or error}).") from error
    return content, hashlib.sha256(content).hexdigest()


def makers(run: Storage, content: bytes) -> set[str]:
    """The sha256 (hex) of each tokenizer whose token ids mean the same in `content`: of itself, and of those of the run that it has only
    added special tokens to, as a chat template does."""
    found = {hashlib.sha256(content).hexdigest()}
    for folder in BEFORE:
        if run.exists(f"{folder}/{NAME}"):
            earlier, sha256 = read_tokenizer(run.child(folder))
            if _only_adds(earlier, content):
                found.add(sha256)
    return found


def _only_adds(earlier: bytes, later: bytes) -> bool:
    before, after = json.loads(earlier), json.loads(later)
    tokens, more = before.pop("added_tokens", []), after.pop("added_tokens", [])
    return bool(before == after and more[: len(tokens)] == tokens)
