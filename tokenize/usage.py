"""How often each token of a vocabulary is used: which never are, which hardly, and which never can be."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.pipeline.text.buffers import text_array
from corpusmill.tokenize.encode import Encoder

#: Tokens that a report names, of each kind.
NAMED = 30


def token_uses(encoder: Encoder, words: pa.Array, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each id (int64 by id) stands in these words (pieces), which occur `counts` times each."""
    ids, lengths = encoder.encode_pieces(words)
    uses = np.zeros(encoder.vocabulary_size, np.int64)
    np.add.at(uses, ids, np.repeat(counts, lengths))
    return uses


def usage(encoder: Encoder, uses: npt.NDArray[np.int64], below: int) -> dict[str, Any]:
    """What `quality.json` says of tokens, special ones left out.

    `undertrained` tokens are used less than `below` times, the least used first. A token is `never_produced` where encoding its own
    text does not give it back: its merges lose to others, or the pattern cuts it.
    """
    bytes_of = {number: token for token, number in encoder.ranks.items()}
    ids = np.array(sorted(bytes_of), np.int64)
    alone = np.array([len(bytes_of[number]) == 1 for number in ids.tolist()])
    rare = uses[ids] < below
    worst = ids[rare & ~alone]
    worst = worst[np.argsort(uses[worst], kind="stable")]
    never = never_produced(encoder, bytes_of)
    return {
        "unused_tokens": int((uses[ids] == 0).sum()),
        "unused_bytes": int((uses[ids[alone]] == 0).sum()),
        "undertrained": {
            "below": below,
            "tokens": int(rare.sum()),
            "worst": [{**_named(number, bytes_of), "uses": int(uses[number])} for number in worst[:NAMED].tolist()],
        },
        "never_produced": {"tokens": len(never), "first": [_named(number, bytes_of) for number in never[:NAMED]]},
    }


def never_produced(encoder: Encoder, bytes_of: dict[int, bytes]) -> list[int]:
    """The ids that encoding their own text (or bytes, where these are no text) does not give."""
    numbers = np.array(sorted(bytes_of), np.int64)
    tokens = [bytes_of[number] for number in numbers.tolist()]
    offsets = np.concatenate(([0], np.cumsum([len(token) for token in tokens]))).astype(np.int64)
    array = text_array(np.frombuffer(b"".join(tokens), np.uint8), offsets)  # not all of it is UTF-8, which kernels do not mind
    whole = np.array([_is_text(token) for token in tokens])
    lost = np.zeros(len(tokens), np.bool_)
    for mask, encode in ((whole, encoder.encode_column), (~whole, encoder.encode_pieces)):
        ids, counts = encode(array.filter(pa.array(mask)))
        first = ids[np.minimum(np.cumsum(counts) - counts, max(len(ids) - 1, 0))]
        lost[mask] = (counts != 1) | (first != numbers[mask])
    found: list[int] = numbers[lost].tolist()
    return found


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def _named(number: int, bytes_of: dict[int, bytes]) -> dict[str, Any]:
    return {"id": number, "text": bytes_of[number].decode("utf-8", "backslashreplace")}
