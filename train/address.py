"""Finds the token at a place in a training step's batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.run import plan_of_existing
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import PackedLoader, WindowLoader
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
    section = plan_of_existing(folder).sections.get(STAGE)
    if not isinstance(section, PretrainConfig):
        raise InputError(f"{folder}: its recipe has no stage {STAGE}, so there are no training steps; give --shard and --token.")
    limits = ("step", step, section.loop.steps), ("row", row, section.batch), ("position", position, section.row_tokens)
    for what, given, limit in limits:
        if not 0 <= given < limit:
            raise InputError(f"{folder}: there is no {what} {given:,} in its pre-training; it has {limit:,}, counted from 0.")
    run = Storage(folder)
    tokens, at = section.plan.source(step)
    shards = TokenShards(tokens_folder(tokens) if tokens else run.path("tokens/train"))
    packed = section.packing == "documents"
    loader: Any = (PackedLoader if packed else WindowLoader)(shards, section.row_tokens, section.batch, section.seed, section.document_mask)
    shard, token, inside, notes = (_packed if packed else _streamed)(loader, at, row, position)
    if tokens:
        raise InputError(f"{folder}: step {step:,} reads {tokens}: give that one, with --shard {shard} --token {token}.")
    batch = {"step": step, "row": row, "position": position, "epoch": (at * loader.batch + row) // loader.rows, **inside}
    return BatchToken(shard, token, batch, [*notes, *_other_training(run, section)])


#: A token's shard, its number there, its place among the rows, and notes.
Found = tuple[int, int, dict[str, int], list[str]]


def _streamed(loader: WindowLoader, step: int, row: int, position: int) -> Found:
    """Finds the token in a window of the stream. With a document mask it attends from the last <|endoftext|> on."""
    shards, start = loader.tokens, int(loader.starts(step, row, row + 1)[0])
    ends = np.flatnonzero(shards.window(start, position + 1) == shards.end_of_text_id)
    sees = int(ends[-1]) if loader.document_mask and len(ends) else 0
    return *shards.shard_of(start + position), {"window": start // loader.context, "attends_from": sees}, []


def _packed(loader: PackedLoader, step: int, row: int, position: int) -> Found:
    """Finds the token in a row of packed documents, where a piece attends only to itself."""
    pieces = loader.pieces(step, row)
    piece = next((one for one in pieces if one.place <= position < one.place + one.tokens), None)
    if piece is None:
        taken = sum(one.tokens for one in pieces)
        raise InputError(f"position {position:,} of this row is empty: the pieces in it take {taken:,} places.")
    inside = {"pieces": len(pieces), "piece_from": piece.place, "attends_from": piece.place if loader.document_mask else 0}
    if position == piece.place and loader.tokens.locate(piece.shard, piece.first).first == piece.first:
        note = "this position holds the <|endoftext|> before a document; shown is the document's first token, which it predicts."
        return piece.shard, piece.first, inside, [note]
    return piece.shard, piece.first + position - piece.place - 1, inside, []


def _other_training(run: Storage, section: PretrainConfig) -> list[str]:
    """Returns a note where the run's model may have been trained in another order. Changed shards need no note here: all views of a run
    report them."""
    trained = Manifest(run.child(STAGE), read_only=True)
    if not trained.complete:
        return [f"{STAGE} is not finished in this run; this is the order in which it goes through the tokens."]
    if trained.rows()[-1].config == config_digest(section):
        return []
    return [f"{STAGE} was finished under another configuration than run.json has now, so its batches may have been others."]
