"""temporary until merge"""

import numpy as np

from corpusmill.dedup.config import MinHashConfig
from corpusmill.dedup.jaccard import shingle_sets
from corpusmill.dedup.minhash import optimal_bands, permutations, signatures


class Shingler:
    def __init__(self, config: MinHashConfig):
        self.config = config

    def setup(self) -> None:
        c = self.config
        bands, rows = (c.bands, c.rows) if c.target is None else optimal_bands(c.target, c.permutations)
        self.m, self.a = permutations(c.seed, bands * rows, c.bits)

    def signatures(self, data, offsets):
        c = self.config
        s, w = signatures(data, offsets, c.ngram, c.min_words, self.m, self.a)
        return s, np.where(w >= max(c.ngram, c.min_words), w - c.ngram + 1, 0)

    def sets(self, data, offsets):
        return shingle_sets(data, offsets, self.config.ngram)
