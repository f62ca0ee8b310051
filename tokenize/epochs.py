"""How often a mixture takes the documents of each component: whole epochs, and a part of the documents once more.

Which documents that part is, is decided by a hash of id and seed: those in the first so many of 2^16 buckets. So the tokens of a component
meet what its weight says to within half a bucket, and nothing that grows with the corpus is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.errors import InputError
from corpusmill.tokenize.chance import BUCKETS
from corpusmill.tokenize.mixture import Mixture

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """What a mixture takes of one component: every document `whole` times, and those in the first `picked` buckets once more.

    `wanted`: tokens by weight and budget; `there`: tokens of its documents for training; `tokens`: what is taken. Where `max_epochs` does
    not allow what is wanted, `short` tokens are missing; no other component makes up for them.
    """

    name: str
    wanted: int
    there: int
    tokens: int
    epochs: float
    whole: int
    picked: int
    short: int


#: Without a mixture every document is taken once.
ONCE = Share("", 0, 0, 0, 1.0, 1, 0, 0)


def shares(mixture: Mixture, histograms: Index) -> list[Share]:
    """Of each component; `histograms` (components x BUCKETS): tokens of its documents for training by the bucket of `pick`.

    Raises InputError where a component has none.
    """
    total = sum(component.weight for component in mixture.components)
    found = []
    for component, histogram in zip(mixture.components, histograms, strict=True):
        there = int(histogram.sum())
        if not there:
            raise InputError(f"tokens.mixture: no document for training with text in it belongs to the component {component.name}.")
        wanted = round(mixture.budget_tokens * component.weight / total)
        target = min(wanted, int(there * component.max_epochs))
        whole, rest = divmod(target, there)
        picked = _nearest(histogram, rest)
        tokens = whole * there + int(histogram[:picked].sum())
        short = wanted - tokens if target < wanted else 0
        found.append(Share(component.name, wanted, there, tokens, round(tokens / there, 6), whole, picked, short))
    return found


def _nearest(histogram: Index, tokens: int) -> int:
    """How many buckets, from the first on, hold most nearly so many tokens."""
    ends = np.concatenate(([0], np.cumsum(histogram)))
    after = min(int(np.searchsorted(ends, tokens, "left")), BUCKETS)
    return after - 1 if after and tokens - ends[after - 1] < ends[after] - tokens else after


def copies_of(shares: Sequence[Share], component: npt.NDArray[np.int16], pick: npt.NDArray[np.uint16]) -> Index:
    """How often each document is taken for training; 0 where it is in no component (-1)."""
    whole, picked = (np.array([getattr(share, name) for share in shares], np.int64) for name in ("whole", "picked"))
    return np.where(component < 0, 0, whole[component] + (pick < picked[component]))


def most_copies(shares: Sequence[Share]) -> int:
    return max(share.whole + (share.picked > 0) for share in shares)
