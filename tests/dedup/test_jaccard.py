import re

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.jaccard import jaccard
from corpusmill.dedup.shingles import Shingler
from corpusmill.pipeline.text.buffers import text_buffers

TEXTS = st.lists(st.text(alphabet="aB ,é", max_size=40), max_size=5)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 4))
def test_similarity_of_sets_of_word_ngrams(texts: list[str], ngram: int) -> None:
    shingler = Shingler(MinHashConfig(ngram=ngram, min_words=1))
    shingler.setup()
    hashes, bounds = shingler.sets(*text_buffers(pa.array(texts, pa.large_string())))
    found = [hashes[bounds[i] : bounds[i + 1]] for i in range(len(texts))]
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    slow = [{tuple(w[i : i + ngram]) for i in range(len(w) - ngram + 1)} for w in words]
    assert [len(s) for s in found] == [len(s) for s in slow]
    for i, a in enumerate(slow):
        assert (np.diff(found[i].astype(object)) > 0).all()
        for j, b in enumerate(slow):
            assert jaccard(found[i], found[j]) == (len(a & b) / len(a | b) if a | b else 0.0)
