"""Bits per byte: what a model needs to write down a text, whatever its tokenizer is.

nats / (ln 2 * UTF-8 bytes), both over the same targets; special tokens count for neither.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

#: (ids, targets, segments or None): int64 `[B, T]` each; targets of -100 don't count.
Batch = tuple[Tensor, Tensor, Tensor | None]


def token_bytes(tokenizer_json: bytes) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of each token by id, from a `tokenizer.json`; 0 for special tokens and unused ids.

    In a byte-level vocabulary every character of a token's name stands for one byte.
    """
    tokenizer = json.loads(tokenizer_json)
    vocab: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["id"] for token in tokenizer.get("added_tokens", []) if token.get("special")}
    byte_level = _mentions_byte_level(tokenizer.get("decoder")) or _mentions_byte_level(tokenizer.get("pre_tokenizer"))
    sizes = np.zeros(max([*vocab.values(), *special], default=-1) + 1, np.int64)
    for name, number in vocab.items():
        if number not in special:
            sizes[number] = len(name) if byte_level else len(name.encode())
    return sizes


def _mentions_byte_level(part: Any) -> bool:
    return part is not None and '"ByteLevel"' in json.dumps(part)
