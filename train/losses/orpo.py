"""Odds Ratio Preference Optimization (Hong et al. 2024, arXiv 2403.07691): tuning and preference in one, without a reference."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from corpusmill.train.losses.pairs import LossOptions, PairLogps, PreferenceLoss


def orpo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-a - beta log sigmoid(log odds(a) - log odds(b)) of the mean log-probabilities a token a, b of chosen and rejected.

    The first term is what tuning on the chosen completions minimises, here of the completion's tokens as in the paper's
    equation 6; the authors' code and TRL count the prompt's tokens in it too.
    """
    a, b = pairs.mean_chosen, pairs.mean_rejected
    return -a - options.beta * logsigmoid(log_odds(a) - log_odds(b))


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) of log-probabilities, with finite values and gradients also where p is rounded to 1.

    `expm1` keeps 1 - p near 0. TRL chooses between two formulas by `torch.where`, which makes the gradient NaN near p = 1.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).tiny)
    return logp - (-torch.expm1(logp)).log()


LOSSES: dict[str, PreferenceLoss] = {"orpo": orpo}
