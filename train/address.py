"""Finds the token at a place in a training step's batch."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.run import RUN_FILE, stored_recipe
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import IGNORED, PackedLoader, WindowLoader
from corpusmill.train.pretrain import PretrainConfig, tokens_folder

STAGE = "pretrain"


@dataclass(frozen=True)
class BatchToken:
    """A token of `tokens/train`, and its place in the training. `notes`: reasons why the training may have had another token there."""

    shard: int
    token: int
    batch: dict[str, Any]
    notes: list[str]


def token_of_batch(folder: str, step: int, row: int, position: int) -> BatchToken:
    """Returns the token at `position` of the input in row `row` of step `step`'s whole batch (all from 0), in a run's pre-training.

    Micro-batches are consecutive rows of the batch. Raises InputError if the run has no pre-training, or no such place.
    """
    section = _section(folder)
    limits = ("step", step, section.loop.steps), ("row", row, section.batch), ("position", position, section.row_tokens)
    for what, given, limit in limits:
        if not 0 <= given < limit:
            raise InputError(f"{folder}: there is no {what} {given:,} in its pre-training; it has {limit:,}, counted from 0.")
    run = Storage(folder)
    tokens, at = section.plan.source(step)
    loader = _loader(section, tokens_folder(tokens) if tokens else run.path("tokens/train"))
    shards: TokenShards = loader.tokens
    if tokens:
        raise InputError(f"{folder}: step {step:,} reads {tokens}: give that one, with --shard and --token.")
    notes = _other_training(run, section)
    _, targets, segments = loader.load(at, row, row + 1)
    targets = targets[0]
    if targets[position] == IGNORED:
        raise InputError(f"position {position:,} of this row is empty: its documents take {int((targets != IGNORED).sum()):,} places.")
    if isinstance(loader, WindowLoader):
        shard, token = shards.shard_of(int(loader.starts(at, row, row + 1)[0]) + position)
    else:
        piece = next(one for one in loader.pieces(at, row) if one.place <= position < one.place + one.tokens)
        shard, token = piece.shard, piece.first + position - piece.place - 1
        if position == piece.place and shards.locate(piece.shard, piece.first).first == piece.first:
            token += 1
            notes.append("this position holds the <|endoftext|> before a document; shown is the document's first token, which it predicts.")
    batch = {"step": step, "row": row, "position": position, "epoch": (at * loader.batch + row) // loader.rows}
    return BatchToken(shard, token, {**batch, "attends_from": _first_seen(segments, position)}, notes)


def _first_seen(segments: Tensor | None, position: int) -> int:
    """Returns the first position that `position` attends to: where its segment begins, or 0 without segments."""
    return 0 if segments is None else int((segments[0] == segments[0, position]).int().argmax())


def steps_with(folder: str, ids: Collection[str]) -> tuple[int, int]:
    """Returns how many steps of a run's pre-training see a token of one of the documents `ids`, and how many steps there are. Raises
    InputError if the run has no pre-training or no tokens."""
    section = _section(folder)
    loader = _loader(section, Storage(folder).path("tokens/train"))
    seen = np.array([not set(loader.documents_of(number)).isdisjoint(ids) for number in range(loader.rows)])
    steps = [at for tokens, at in map(section.plan.source, range(section.loop.steps)) if not tokens]
    return sum(bool(seen[loader.numbers(at)].any()) for at in steps), section.loop.steps


def _section(folder: str) -> PretrainConfig:
    stored = stored_recipe(folder)[0]  # other sections may name code
    section = validate_recipe({name: stored[name] for name in stored if name == STAGE}, Storage(folder).path(RUN_FILE)).get(STAGE)
    if not isinstance(section, PretrainConfig):
        raise InputError(f"{folder}: its recipe has no stage {STAGE}, so there are no training steps; give --shard and --token.")
    return section


def _loader(section: PretrainConfig, tokens: str) -> WindowLoader | PackedLoader:
    kind: Any = PackedLoader if section.packing == "documents" else WindowLoader
    loader: WindowLoader | PackedLoader = kind(TokenShards(tokens), section.row_tokens, section.batch, section.seed, section.document_mask)
    return loader


def _other_training(run: Storage, section: PretrainConfig) -> list[str]:
    """Returns a note where the run's model may have been trained in another order. Changed shards need no note here: all views of a run
    report them."""
    trained = Manifest(run.child(STAGE), read_only=True)
    if not trained.complete:
        return [f"{STAGE} is not finished in this run; this is the order in which it goes through the tokens."]
    if trained.rows()[-1].config == config_digest(section):
        return []
    return [f"{STAGE} was finished under another configuration than run.json has now, so its batches may have been others."]
