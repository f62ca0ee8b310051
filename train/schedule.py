"""Learning rates over the steps, as a fraction of the peak."""

import math

from corpusmill.train.options import LoopConfig


def lr_fraction(step: int, config: LoopConfig) -> float:
    """The fraction at `step` (0, 1, ...): linear warm-up, then cosine, linear, or constant with an end (`wsd`).

    Warm-up is nanoGPT's (step + 1) / (warmup + 1), so no step is lost at rate 0. The end of `wsd` is a line, or
    1 - sqrt(part done) (Haegele et al. 2024, https://arxiv.org/abs/2405.18392).
    """
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    begin = config.warmup
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "wsd":
        begin = max(begin, config.steps - round(config.decay_fraction * config.steps))
    done = min(max((step - begin) / max(config.steps - begin, 1), 0.0), 1.0)
    if config.schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * done))
    else:
        left = 1 - math.sqrt(done) if (config.schedule, config.decay) == ("wsd", "1-sqrt") else 1 - done
    return config.min_lr + (1 - config.min_lr) * left
