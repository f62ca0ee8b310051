"""Packed rows: every token is a target once, from the token before it, and sees only its own piece."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_sets import flat, random_documents, write_token_set

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.packing import cut
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.packed import PackedLoader
from corpusmill.train.packing import IGNORED

DOCUMENT = st.lists(st.integers(4, 4095), max_size=25).map(lambda ids: [*ids, 0])
SETS = st.lists(st.lists(DOCUMENT, max_size=8), min_size=1, max_size=4).filter(any)


def pieces_of(batch):
    """(row, ids, targets) of each piece in a batch, and of what rows have left."""
    found, left = [], []
    ids, targets, segments = (part.numpy() for part in batch)
    for row in range(len(ids)):
        for segment in range(segments[row].max() + 1):
            here = segments[row] == segment
            if here.any():
                assert (np.diff(np.flatnonzero(here)) == 1).all()
                (left if targets[row][here][0] == IGNORED else found).append((row, ids[row][here].tolist(), targets[row][here].tolist()))
    return found, left


@settings(deadline=None, max_examples=60)
@given(sets=SETS, wide=st.booleans(), batch=st.integers(1, 5))
def test_an_epoch_has_every_token_once_from_the_one_before_it(tmp_path_factory, sets, wide, batch) -> None:
    folder, length = tmp_path_factory.mktemp("set"), 10
    write_token_set(folder, sets, vocabulary_size=100_000 if wide else 4096, pack=(length,))
    loader = PackedLoader(TokenShards(folder), length, batch, seed=3, document_mask=True)
    wanted = []  # (ids, targets) of the pieces, shard by shard
    for documents in sets:
        row = flat([documents])
        for first, size in zip(*cut(np.array([len(d) for d in documents], np.int64), length)):
            before = [EOT_ID, *row][first : first + size]
            wanted.append((before, row[first : first + size]))
    found, left = pieces_of(loader.samples(0, loader.rows))
    assert sorted((ids, targets) for _, ids, targets in found) == sorted(wanted)
    assert sum(len(targets) for _, _, targets in found) == len(flat(sets))
    assert all(set(ids) == {PAD_ID} and set(targets) == {IGNORED} for _, ids, targets in left)
    places = loader.rows * length
    assert sum(len(ids) for _, ids, _ in left) == places - len(flat(sets))
    again, _ = pieces_of(loader.samples(loader.rows, loader.rows))
    assert sorted(again[i][1:] for i in range(len(again))) == sorted(found[i][1:] for i in range(len(found)))


def test_any_micro_batches_are_the_batch_and_documents_are_named(tmp_path) -> None:
    sets = random_documents(4, 20, 30)
    write_token_set(tmp_path, sets, pack=(16,))
    loader = PackedLoader(TokenShards(tmp_path), 16, 12, seed=0, document_mask=True)
    for step in (0, 3, 10**12):
        whole = loader.load(step)
        parts = [loader.load(step, a, b) for a, b in pairwise((0, 1, 5, 12))]
        assert all(torch.equal(torch.cat([part[i] for part in parts]), whole[i]) for i in range(3))  # type: ignore[misc]
    names = {tuple(document): f"{number}/{row}" for number, documents in enumerate(sets) for row, document in enumerate(documents)}
    wanted = set()
    for _, _, targets in pieces_of(loader.load(1))[0]:
        text = ",".join(map(str, targets))
        wanted.add(next(name for document, name in names.items() if text in ",".join(map(str, document))))
    assert len(set(loader.documents(1)) ^ wanted) <= 2  # a document that is only an end, or two alike, may have another's name
    copy = pickle.loads(pickle.dumps(loader))  # noqa: S301 - our own bytes
    assert all(torch.equal(a, b) for a, b in zip(copy.load(2), loader.load(2)))  # type: ignore[arg-type]
    assert PackedLoader(TokenShards(tmp_path), 16, 12, seed=0, document_mask=False).load(0)[2] is None


def test_threads_may_share_a_loader(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(40, 30, 40), pack=(16,))
    one, shared = (PackedLoader(TokenShards(tmp_path), 16, 8, seed=0, document_mask=True) for _ in range(2))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.load, range(300)))
    for step, batch in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(batch, one.load(step)))  # type: ignore[arg-type]


def test_pieces_say_which_tokens_a_row_holds(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(4, 20, 30), pack=(16,))
    shards = TokenShards(tmp_path)
    loader = PackedLoader(shards, 16, 12, seed=0, document_mask=True)
    _, targets, segments = loader.load(7)
    for row in range(12):
        pieces = loader.pieces(7, row)
        for number, piece in enumerate(pieces):
            wanted = shards.tokens(piece.shard)[piece.first : piece.first + piece.tokens].tolist()
            assert targets[row, piece.place : piece.place + piece.tokens].tolist() == wanted
            assert segments is not None and segments[row, piece.place].item() == number
        assert sum(piece.tokens for piece in pieces) == (targets[row] != IGNORED).sum()


def test_a_missing_plan_says_what_makes_it(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(2, 5, 10), pack=(16,))
    with pytest.raises(InputError, match=r"not packed into rows of 32; corpusmill tokens RUN --redo --set tokens.pack_lengths=\[32\]"):
        PackedLoader(TokenShards(tmp_path), 32, 1, seed=0, document_mask=True)
    write_token_set(tmp_path / "none", [], pack=(16,))
    with pytest.raises(InputError, match="there are no training tokens"):
        PackedLoader(TokenShards(tmp_path / "none"), 16, 1, seed=0, document_mask=True)


def test_packed_rows_give_the_losses_of_lone_documents(tmp_path) -> None:
    """In float64: the sum over packed rows is that of each document alone, a long one in the pieces that the plan cuts."""
    from corpusmill.train.architecture import Architecture
    from corpusmill.train.model import Llama, initialise
    from corpusmill.train.parallel.computation import Local

    sets = random_documents(3, 12, 40, vocabulary_size=99)
    write_token_set(tmp_path, sets, vocabulary_size=99, pack=(16,))
    model = Llama(Architecture(vocab_size=99, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=16)).double()
    initialise(model, 0)
    model.lm_head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    model.model.layers["0"].self_attn.o_proj.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    loader, nats = PackedLoader(TokenShards(tmp_path), 16, 4, seed=0, document_mask=True), Local(model, "fp32").nats
    with torch.no_grad():
        packed = nats(*loader.samples(0, loader.rows)).sum()
        alone = 0.0
        for document in (document for documents in sets for document in documents):
            for first in range(0, len(document), 16):
                targets = torch.tensor([document[first : first + 16]])
                ids = torch.tensor([[0, *document][first : first + targets.size(1)]])
                alone += float(nats(ids, targets, None).sum())
        ids, targets, _ = loader.samples(0, loader.rows)
        without = nats(ids, targets, None).sum()
    assert float(packed) == pytest.approx(alone, rel=1e-12)
    assert abs(float(without) - alone) > 1e-3 * alone  # the mask matters
