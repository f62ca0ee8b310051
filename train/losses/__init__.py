"""Preference losses: pure functions of the log-probabilities of completions, a family a file.

A loss takes log-probabilities and `LossOptions` and gives one float32 value a pair (KTO: a completion); nothing here knows
models or batches.
"""

from corpusmill.train.losses import dpo, ipo, orpo, simpo
from corpusmill.train.losses.pairs import METRICS, LossOptions, PairLogps, PreferenceLoss, pair_metrics

LOSSES: dict[str, PreferenceLoss] = {**dpo.LOSSES, **ipo.LOSSES, **orpo.LOSSES, **simpo.LOSSES}

__all__ = ["LOSSES", "METRICS", "LossOptions", "PairLogps", "PreferenceLoss", "pair_metrics"]
