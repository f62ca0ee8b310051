"""Tests the order of windows and packed rows, and that each epoch has every token once, for any number of processes."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from token_sets import TokenArray, flat, random_documents, write_token_set
from torch.utils.data import DataLoader

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.packing import cut
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import (
    IGNORED,
    DataShare,
    PackedLoader,
    TokenDataset,
    WindowLoader,
    evaluation_batches,
    pack,
    permute,
    to_device,
)
from corpusmill.train.template import Encoded

# ---- permutation -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_every_place_once(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, seed, epoch)), np.arange(n))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 2**50), seed=st.integers(0, 2**31), places=st.lists(st.integers(0, 2**50), min_size=1, max_size=50, unique=True))
def test_a_place_does_not_depend_on_what_else_is_asked(n: int, seed: int, places: list[int]) -> None:
    wanted = np.array(sorted({p % n for p in places}), np.int64)
    together = permute(wanted, n, seed, 0)
    assert together.tolist() == [int(permute(wanted[i : i + 1], n, seed, 0)[0]) for i in range(len(wanted))]
    assert len(set(together.tolist())) == len(wanted) and together.min() >= 0 and together.max() < n


def test_orders_differ_by_seed_and_epoch_and_look_random() -> None:
    n = 10_000
    orders = [permute(np.arange(n), n, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for i, a in enumerate(orders):
        assert abs(np.corrcoef(a, np.arange(n))[0, 1]) < 0.04  # four standard deviations
        assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.04
        for b in orders[i + 1 :]:
            assert (a == b).sum() < 12
    counts = np.bincount(orders[0][:1000] // 1000, minlength=10)  # the first tenth comes from everywhere
    assert ((counts - 100) ** 2 / 100).sum() < 28


def test_orders_stay_what_they_were() -> None:
    """The expected values are of the first version: with others, a resumed training would see some windows twice and others never."""
    assert permute(np.arange(6), 1000, 1, 0).tolist() == [248, 164, 715, 2, 896, 553]
    assert permute(np.array([10**9, 2]), 2**40, 7, 3).tolist() == [497988976818, 835641302277]
    assert permute(np.arange(5), 2**20 + 1, 2**63, 2).tolist() == [590840, 657201, 371029, 797719, 614757]


# ---- loader ------------------------------------------------------------------------------------------

# Windows: the same for any division into micro-batches, each once an epoch, with the borders of their documents.


class Row(TokenArray):
    """Token `i` at position `i`, so that a token shows its origin."""

    def __init__(self, tokens: int):
        super().__init__(np.arange(tokens, dtype=np.uint16))

    def window(self, start: int, length: int) -> np.ndarray:
        assert start >= 0 and start + length <= len(self.ids)
        return super().window(start, length)


def test_an_epoch_has_every_window_once_whatever_the_batch_is() -> None:
    for batch in (1, 5, 7):
        loader = WindowLoader(Row(8 * 35 + 1), context=8, batch=batch, seed=3, document_mask=False)
        starts = np.concatenate([loader.starts(step) for step in range(2 * 35 // batch)])
        for epoch in (starts[:35], starts[35:]):
            assert sorted(epoch.tolist()) == list(range(0, 280, 8))
        assert starts[:35].tolist() != starts[35:].tolist()
    ids, targets, segments = loader.load(0)
    assert torch.equal(targets, ids + 1) and ids.shape == (7, 8) and segments is None


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 300), of=st.integers(1, 5), batch=st.integers(1, 7), windows=st.integers(0, 12))
def test_shares_of_an_evaluation_are_the_whole_and_equally_many_batches_of_one_shape(tokens, of, batch, windows) -> None:
    def batches(share: DataShare) -> list:
        return list(evaluation_batches(Row(tokens), 8, batch, True, windows, share))

    def placed(found: list) -> list[int]:
        return sorted(p for places, (_, targets, _) in found for p in places[targets.numpy() >= 0].tolist())

    shares, whole = [batches(DataShare(index, of)) for index in range(of)], batches(DataShare())
    assert sorted(chain.from_iterable(map(placed, shares))) == placed(whole)
    assert windows or placed(whole) == list(range(tokens))
    assert all(int(target) in (place, -100) for places, (_, targets, _) in whole for place, target in zip(places.flat, targets.flatten()))
    assert len({tuple(ids.shape for _, (ids, _, _) in share) for share in shares}) == 1
    assert len({ids.shape for share in shares for _, (ids, _, _) in share}) == 1


def test_too_few_tokens_are_a_sentence() -> None:
    with pytest.raises(InputError, match="too few: 8, and one window needs 9"):
        WindowLoader(Row(8), context=8, batch=1, seed=0, document_mask=False)


SETS = st.lists(st.lists(st.lists(st.integers(1, 4095), max_size=6).map(lambda ids: [*ids, 0]), max_size=5), min_size=1, max_size=5)


@settings(deadline=None, max_examples=15)
@given(sets=SETS, context=st.integers(1, 9), wide=st.booleans())
def test_windows_are_those_of_the_flat_row_across_all_borders(tmp_path_factory, sets, context, wide) -> None:
    row = np.array(flat(sets))
    assume(len(row) > context)
    folder = tmp_path_factory.mktemp("set")
    write_token_set(folder, sets, vocabulary_size=100_000 if wide else 4096)
    loader = WindowLoader(TokenShards(folder), context, batch=4, seed=1, document_mask=True)
    for step in range(3):
        ids, targets, segments = loader.load(step)
        assert ids.dtype == torch.int64
        for number, start in enumerate(loader.starts(step).tolist()):
            window = row[start : start + context + 1]
            assert ids[number].tolist() == window[:-1].tolist() and targets[number].tolist() == window[1:].tolist()
            assert segments is not None and segments[number].tolist() == np.cumsum(window[:-1] == EOT_ID).tolist()


# ---- packed ------------------------------------------------------------------------------------------

# Packed rows: every token is a target once, from the token before it, and sees only its own piece.

DOCUMENT = st.lists(st.integers(4, 4095), max_size=25).map(lambda ids: [*ids, 0])
PACKED_SETS = st.lists(st.lists(DOCUMENT, max_size=8), min_size=1, max_size=4).filter(any)


def pieces_of(batch):
    """Returns (row, ids, targets) of each piece in a batch, and of the free places of rows."""
    found, left = [], []
    ids, targets, segments = (part.numpy() for part in batch)
    for row in range(len(ids)):
        for segment in range(segments[row].max() + 1):
            here = segments[row] == segment
            if here.any():
                assert (np.diff(np.flatnonzero(here)) == 1).all()
                (left if targets[row][here][0] == IGNORED else found).append((row, ids[row][here].tolist(), targets[row][here].tolist()))
    return found, left


@settings(deadline=None, max_examples=15)
@given(sets=PACKED_SETS, wide=st.booleans(), batch=st.integers(1, 5))
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


def test_documents_of_a_step_are_named(tmp_path) -> None:
    sets = random_documents(4, 20, 30)
    write_token_set(tmp_path, sets, pack=(16,))
    shards = TokenShards(tmp_path)
    windows, packed = (kind(shards, 16, 3, seed=0, document_mask=True) for kind in (WindowLoader, PackedLoader))
    wanted = {shards.locate(*shards.shard_of(place)).id for start in windows.starts(4) for place in range(start, start + 17)}
    assert windows.documents(4) == sorted(wanted)
    texts = {f"{number}/{row}": str(["", *ids, ""]) for number, documents in enumerate(sets) for row, ids in enumerate(documents)}
    pieces = [f" {str(targets)[1:-1]}," for _, _, targets in pieces_of(packed.load(1))[0]]
    assert set(packed.documents(1)) == {next(name for name, text in texts.items() if piece in text) for piece in pieces}


# ---- packing -----------------------------------------------------------------------------------------

# Packing loses no token, mixes no sequences, and is as tight as its figures say.


def sequence(ids, mask) -> Encoded:
    return Encoded(np.array(ids, np.int32), np.array(mask, np.bool_))


@st.composite
def sequences(draw):
    lengths = draw(st.lists(st.integers(2, 17), min_size=1, max_size=30))
    return [sequence(draw(st.lists(st.integers(4, 99), min_size=n, max_size=n)), [draw(st.booleans()) for _ in range(n)]) for n in lengths]


@settings(deadline=None)
@given(sequences())
def test_every_token_and_target_is_there_once(given_sequences):
    packed = pack(given_sequences, 16)
    assert sorted(number for row in packed.members for number in row) == list(range(len(given_sequences)))
    for row, numbers in enumerate(packed.members):
        for segment, number in enumerate(numbers):
            here = packed.segments[row] == segment
            ids, mask = given_sequences[number].ids, given_sequences[number].mask
            assert packed.ids[row][here].tolist() == ids[:-1].tolist()
            expected = [token if learned else IGNORED for token, learned in zip(ids[1:].tolist(), mask[1:].tolist())]
            assert packed.targets[row][here].tolist() == expected
        padding = packed.segments[row] == len(numbers)
        assert (packed.ids[row][padding] == PAD_ID).all() and (packed.targets[row][padding] == IGNORED).all()


def test_a_copy_to_a_device_takes_whole_pinned_memory(monkeypatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.is_contiguous()) or self)
    batch = WindowLoader(TokenArray(np.arange(100, dtype=np.uint16)), 8, 3, seed=0, document_mask=False).load(0)
    ids, _, segments = to_device(batch, torch.device("meta"))
    assert pinned == [True, True] and ids.device.type == "meta" and segments is None


# ---- dataset -----------------------------------------------------------------------------------------

# The same samples in the same order for any number of processes, workers and micro-batches; one integer resumes anywhere.


def loader_of(kind, folder):
    write_token_set(folder, random_documents(6, 40, 50), pack=(16,))
    return kind(TokenShards(folder), 16, 12, seed=4, document_mask=True)


@pytest.fixture(params=[WindowLoader, PackedLoader], ids=["stream", "documents"])
def loader(request, tmp_path):
    return loader_of(request.param, tmp_path)


def rows(batches) -> list[list[int]]:
    return [[*row.tolist(), *target.tolist(), *segment.tolist()] for batch in batches for row, target, segment in zip(*batch)]


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 5), (3, 1), (12, 0)])
def test_all_processes_together_have_the_steps(loader, world, micro_batch) -> None:
    wanted = rows(loader.load(step) for step in range(3))
    parts = [list(TokenDataset(loader, micro_batch, rank, world, steps=3)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    found = rows(batch for together in zip(*parts) for batch in together)
    assert found == wanted
    assert all(len(batch[0]) <= (micro_batch or 12 // world) for part in parts for batch in part)


def test_threads_may_share_a_loader_and_processes_a_copy(loader) -> None:
    copy = pickle.loads(pickle.dumps(loader))  # noqa: S301 - our own bytes
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(copy.load, range(100)))
    for step, batch in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(batch, loader.load(step)))


def test_workers_give_the_order_of_none(loader) -> None:
    dataset = TokenDataset(loader, 5, steps=4)
    wanted = rows(TokenDataset(loader, 5, steps=4))
    assert rows(DataLoader(dataset, batch_size=None, num_workers=1)) == wanted
    assert rows(dataset.batches(2)) == wanted and dataset.state_dict() == {"samples": 48}


def test_one_integer_goes_on_with_other_processes_and_micro_batches(loader) -> None:
    wanted = rows(TokenDataset(loader, steps=5))
    first = TokenDataset(loader, 4)
    begun = []
    for batch in first.batches(2):
        begun += rows([batch])
        if len(begun) == 20:
            break
    state = first.state_dict()
    assert state == {"samples": 20}
    parts = []
    for rank in range(2):
        dataset = TokenDataset(loader, 2, rank, 2, steps=5)
        dataset.load_state_dict(state)
        parts.append(list(dataset))
    assert begun + rows(batch for together in zip(*parts) for batch in together) == wanted


def test_the_rest_of_a_step_without_equal_shares_is_refused(loader) -> None:
    dataset = TokenDataset(loader, 4, 0, 3)
    with pytest.raises(ValueError, match="4 samples: the rest of a step of 12 has no equal shares for 3 processes"):
        dataset.load_state_dict({"samples": 4})
    with pytest.raises(ValueError, match="-12 samples"):
        dataset.load_state_dict({"samples": -12})
    for rank, world in ((2, 2), (0, 5)):
        with pytest.raises(ValueError, match="every process needs an equal share"):
            TokenDataset(loader, 0, rank, world)
    dataset.load_state_dict({"samples": 6})
    assert dataset.state_dict() == {"samples": 6} and len(next(iter(dataset))[0]) == 2


def test_step_a_million_is_there_at_once(loader) -> None:
    dataset = TokenDataset(loader)
    dataset.load_state_dict({"samples": 12 * 1_000_000})
    assert all(torch.equal(a, b) for a, b in zip(next(iter(dataset)), loader.load(1_000_000)))
    assert dataset.state_dict() == {"samples": 12 * 1_000_001}
