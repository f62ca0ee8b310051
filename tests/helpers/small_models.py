"""Small models with random weights, none of them zero, and token ids for them."""

import torch

from corpusmill.train.model import Llama, blank_model, fill
from corpusmill.train.options import Architecture

VOCABULARY = 97


def random_model(seed: int = 0, **changes: object) -> Llama:
    shape = {"vocab_size": VOCABULARY, "layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 96, "context": 64}
    model = Llama(Architecture.model_validate({**shape, **changes}))
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.2 + (p.dim() == 1)
    return model


def random_ids(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def new_model(arch: Architecture, seed: int) -> Llama:
    """Returns a model in the state in which a training from scratch begins."""
    model = blank_model(arch)
    fill(model, seed, "cpu")
    return model
