"""Direct Preference Optimization (Rafailov et al. 2023, arXiv 2305.18290) and its noise-aware variants."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from corpusmill.train.losses.pairs import LossOptions, PairLogps, PreferenceLoss


def sigmoid(pairs: PairLogps, options: LossOptions) -> Tensor:
    """-log sigmoid(beta h)."""
    return -logsigmoid(options.beta * pairs.log_ratio)


def conservative(pairs: PairLogps, options: LossOptions) -> Tensor:
    """cDPO: a share e of the labels is taken as swapped, -(1-e) log sigmoid(beta h) - e log sigmoid(-beta h)
    (trainers.py of the authors' repository)."""
    share, scaled = options.label_smoothing, options.beta * pairs.log_ratio
    return -(1 - share) * logsigmoid(scaled) - share * logsigmoid(-scaled)


def mean_sigmoid(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Length-normalised DPO (Tulu 3, arXiv 2411.15124): -log sigmoid(beta h) of mean log-probabilities a token."""
    return -logsigmoid(options.beta * pairs.mean_log_ratio)


def robust(pairs: PairLogps, options: LossOptions) -> Tensor:
    """Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409), an unbiased estimate under a share e < 1/2 of swapped
    labels: (-(1-e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1-2e)."""
    share, scaled = options.label_smoothing, options.beta * pairs.log_ratio
    return (-(1 - share) * logsigmoid(scaled) + share * logsigmoid(-scaled)) / (1 - 2 * share)


LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": sigmoid,
    "conservative": conservative,
    "mean-sigmoid": mean_sigmoid,
    "robust": robust,
}
