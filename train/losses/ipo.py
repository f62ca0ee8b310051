"""Identity Preference Optimization (Azar et al. 2023, arXiv 2310.12036)."""

from torch import Tensor

from corpusmill.train.losses.pairs import LossOptions, PairLogps, PreferenceLoss


def ipo(pairs: PairLogps, options: LossOptions) -> Tensor:
    """(h - 1 / (2 beta))^2 of mean log-probabilities a token, as TRL has it and the authors confirmed."""
    return (pairs.mean_log_ratio - 1 / (2 * options.beta)) ** 2


LOSSES: dict[str, PreferenceLoss] = {"ipo": ipo}
