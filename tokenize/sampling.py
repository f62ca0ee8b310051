"""The sample that the tokenizer is trained on: documents by a hash of their id, until there is enough text.

Which documents are in it depends on ids, lengths and the seed; how the documents lie in files plays no part.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.tokenize.chance import BUCKETS, buckets, hashes


def bucket_sizes(documents: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of text in each hash bucket, int64 of length BUCKETS."""
    places = buckets(hashes(documents["id"].to_pylist(), seed))
    sizes = pc.binary_length(documents["text"]).to_numpy().astype(np.int64)
    found = np.zeros(BUCKETS, np.int64)
    np.add.at(found, places, sizes)
    return found


def buckets_needed(sizes: npt.NDArray[np.int64], sample_bytes: int) -> int:
    """How many buckets, from the first on, hold at least `sample_bytes` of text: all of them where the text is less."""
    return min(int(np.searchsorted(np.cumsum(sizes), sample_bytes, "left")) + 1, BUCKETS)


def in_sample(documents: pa.Table, seed: int, chosen: int) -> pa.Table:
    """The documents in the first `chosen` buckets."""
    places = buckets(hashes(documents["id"].to_pylist(), seed))
    return documents.filter(pa.array(places < chosen))
