"""A model with rows for tokens that it did not have: new special tokens of a chat template.

A new row, of the embedding and of the head, is the mean of the rows that were there. So a new token's logit is the mean of the old
ones, and the model's distribution hardly changes (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021;
`transformers`' `resize_token_embeddings`, by which TRL's `clone_chat_template` does it, draws from a normal around the same mean
with 1e-9 of the covariance). The mean itself needs no drawing. Equal rows part at the first step, as they stand in different places.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_folder import chat_files
from corpusmill.train.checkpoint import load_model, model_of, model_tensors, save_model
from corpusmill.train.model import Llama
from corpusmill.train.template import ChatEncoder, load_chat


def prepared_folder(parent: Storage, encoder: ChatEncoder, target: Path) -> Storage:
    """The model folder to tune: `parent` itself where it has this tokenizer and template, else `target`, written with them."""
    own = load_chat(parent)
    if own.fingerprint == encoder.fingerprint:
        return parent
    model = grown(load_model(parent.root), new_ids(own, encoder))
    save_model(model, target, chat_files(encoder, model.arch.context))
    return Storage(str(target))


def new_ids(old: ChatEncoder, new: ChatEncoder) -> list[int]:
    """The ids of the special tokens that only the new tokenizer has."""
    return sorted(number for token, number in new.special_ids.items() if old.tokenizer.token_to_id(token) is None)


@torch.no_grad()
def grown(model: Llama, tokens: Sequence[int]) -> Llama:
    """A model in which the rows of `tokens` (ids, also beyond its vocabulary) are the mean of the others; tied heads stay tied."""
    if not tokens:
        return model
    rows = max(model.arch.vocab_size, max(tokens) + 1)
    weights = {
        name: _with_mean_rows(weight, rows, tokens) if name in ("model.embed_tokens.weight", "lm_head.weight") else weight
        for name, weight in model_tensors(model).items()
    }
    return model_of(model.arch.model_copy(update={"vocab_size": rows}), weights)


def _with_mean_rows(weight: Tensor, rows: int, tokens: Sequence[int]) -> Tensor:
    """`weight` `[vocabulary, width]` with `rows` rows; the mean is taken in float64, so that a sum in another order rounds to the same."""
    known = torch.ones(len(weight), dtype=torch.bool)
    known[[token for token in tokens if token < len(weight)]] = False
    mean = weight[known].double().mean(dim=0).to(weight.dtype)
    larger = torch.cat([weight, mean.expand(rows - len(weight), -1)])
    larger[list(tokens)] = mean
    return larger
