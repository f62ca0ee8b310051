"""Simple Preference Optimization (Meng et al. 2024, arXiv 2405.14734): rewards of means a token, without a reference."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from corpusmill.train.losses.pairs import LossOptions, PairLogps, PreferenceLoss


def simpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-log sigmoid(beta (a - b) - gamma) of the mean log-probabilities a token a, b of chosen and rejected."""
    return -logsigmoid(options.beta * (pairs.mean_chosen - pairs.mean_rejected) - options.gamma)


LOSSES: dict[str, PreferenceLoss] = {"simpo": simpo}
