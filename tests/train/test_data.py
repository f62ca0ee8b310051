"""Tests that the order of the windows is a bijection that changes with seed and epoch."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from token_sets import flat, random_documents, write_token_set
from torch.utils.data import DataLoader

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.packing import cut
from corpusmill.pipeline.special_tokens import EOT_ID, PAD_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.data import (
    IGNORED,
    DataShare,
    PackedLoader,
    TokenArray,
    TokenDataset,
    WindowLoader,
    evaluation_batches,
    pack,
    permute,
    places,
    steps_of,
    to_batch,
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


# ---- order -------------------------------------------------------------------------------------------

# Every epoch sees every example once, in its own order.


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_each_epoch_is_a_permutation(examples, batch, seed):
    steps = steps_of(3, batch, examples)
    seen = np.concatenate([places(step * batch, batch, examples, seed) for step in range(steps)])[: 3 * examples]
    for epoch in seen.reshape(3, examples):
        assert sorted(epoch) == list(range(examples))


def test_epochs_and_seeds_differ():
    first, second = places(0, 50, 50, 1), places(50, 50, 50, 1)
    assert first.tolist() != second.tolist() != places(50, 50, 50, 2).tolist()


def test_steps():
    assert [steps_of(1, 8, 16), steps_of(1, 8, 17), steps_of(0.5, 8, 16), steps_of(2, 8, 3)] == [2, 3, 1, 1]


# ---- loader ------------------------------------------------------------------------------------------

# Windows: the same for any division into micro-batches, each once an epoch, with the borders of their documents.


class Row(TokenArray):
    """Token `i` at position `i`, so that a token shows its origin."""

    def __init__(self, tokens: int):
        super().__init__(np.arange(tokens, dtype=np.uint16))

    def window(self, start: int, length: int) -> np.ndarray:
        assert start >= 0 and start + length <= len(self.ids)
        return super().window(start, length)


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 10_000), cuts=st.sets(st.integers(1, 11)), seed=st.integers(0, 9))
def test_any_micro_batches_are_the_batch(step: int, cuts: set[int], seed: int) -> None:
    loader = WindowLoader(Row(1000), context=8, batch=12, seed=seed, document_mask=True)
    whole = loader.load(step)
    borders = [0, *sorted(cuts), 12]
    parts = [loader.load(step, a, b) for a, b in pairwise(borders)]
    for i in range(3):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_an_epoch_has_every_window_once_whatever_the_batch_is() -> None:
    for batch in (1, 5, 7):
        loader = WindowLoader(Row(8 * 35 + 1), context=8, batch=batch, seed=3, document_mask=False)
        starts = np.concatenate([loader.starts(step) for step in range(2 * 35 // batch)])
        for epoch in (starts[:35], starts[35:]):
            assert sorted(epoch.tolist()) == list(range(0, 280, 8))
        assert starts[:35].tolist() != starts[35:].tolist()
    ids, targets, segments = loader.load(0)
    assert torch.equal(targets, ids + 1) and ids.shape == (7, 8) and segments is None


def test_documents_begin_at_their_end_of_text() -> None:
    rows = np.array([[5, 6, 0, 7, 8, 0, 9], [0, 5, 5, 5, 0, 0, 5]], np.int64)
    ids, targets, segments = to_batch(rows, document_mask=True)
    assert segments is not None
    assert segments.tolist() == [[0, 0, 1, 1, 1, 2], [1, 1, 1, 1, 2, 3]]
    assert targets.tolist() == rows[:, 1:].tolist() and ids.tolist() == rows[:, :-1].tolist()


@pytest.mark.parametrize("tokens", [1, 2, 8, 9, 15, 16, 17, 100])
def test_evaluation_predicts_every_token_once(tokens: int) -> None:
    batches = list(evaluation_batches(Row(tokens), context=8, batch=3, document_mask=False))
    targets = torch.cat([targets.flatten() for _, (_, targets, _) in batches])
    places = np.concatenate([places.flatten() for places, _ in batches])
    assert targets[targets >= 0].tolist() == list(range(tokens)) and targets.tolist() == [p if p >= 0 else -100 for p in places.tolist()]


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(1, 300), of=st.integers(1, 5), batch=st.integers(1, 7), windows=st.integers(0, 12))
def test_shares_of_an_evaluation_are_the_whole_and_equally_many_batches_of_one_shape(tokens, of, batch, windows) -> None:
    def batches(share: DataShare) -> list:
        return list(evaluation_batches(Row(tokens), 8, batch, True, windows, share))

    def placed(found: list) -> list[int]:
        return sorted(p for places, (_, targets, _) in found for p in places[targets.numpy() >= 0].tolist())

    shares = [batches(DataShare(index, of)) for index in range(of)]
    assert sorted(chain.from_iterable(map(placed, shares))) == placed(batches(DataShare()))
    assert len({tuple(ids.shape for _, (ids, _, _) in share) for share in shares}) == 1
    assert len({ids.shape for share in shares for _, (ids, _, _) in share}) == 1


def test_a_glance_takes_spread_windows() -> None:
    batches = list(evaluation_batches(Row(801), context=8, batch=3, document_mask=False, windows=4))
    assert torch.cat([ids[:, 0] for _, (ids, _, _) in batches]).tolist() == [EOT_ID, 199, 399, 599]


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


def test_only_the_shards_of_a_batch_are_mapped(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(20, 30, 40))
    shards = TokenShards(tmp_path)
    loader = WindowLoader(shards, context=8, batch=2, seed=0, document_mask=False)
    loader.load(0)
    mapped = np.flatnonzero(shards.addresses)
    starts = loader.starts(0)
    touched = {int(np.searchsorted(shards.starts, place, "right")) - 1 for start in starts for place in range(start, start + 9)}
    assert set(mapped.tolist()) == touched and 1 <= len(touched) <= 4


def test_samples_go_on_from_one_epoch_into_the_next() -> None:
    wanted = np.concatenate([permute(np.arange(7), 7, 5, epoch) for epoch in range(4)]).tolist()
    assert places(0, 28, 7, 5).tolist() == wanted
    assert places(5, 10_000, 1, 0).tolist() == [0] * 10_000
    assert places(3, 20, 7, 5).tolist() == wanted[3:23] and len(places(3, 0, 7, 5)) == 0


def test_any_step_is_there_at_once() -> None:
    loader = WindowLoader(Row(10_001), context=10, batch=8, seed=1, document_mask=False)
    for step in (0, 1_000_000, 10**15):
        ids, _, _ = loader.load(step)
        samples = [step * 8 + i for i in range(8)]
        assert ids[:, 0].tolist() == [10 * int(permute(np.array([n % 1000]), 1000, 1, n // 1000)[0]) for n in samples]


def test_threads_may_share_a_loader(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(30, 40, 60))
    loader = WindowLoader(TokenShards(tmp_path), context=16, batch=8, seed=0, document_mask=True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(loader.load, range(200)))
    again = WindowLoader(TokenShards(tmp_path), context=16, batch=8, seed=0, document_mask=True)
    for step, batch in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(batch, again.load(step)))  # type: ignore[arg-type]


def test_documents_of_a_step_are_named(tmp_path) -> None:
    write_token_set(tmp_path, random_documents(3, 10, 20))
    loader = WindowLoader(TokenShards(tmp_path), context=8, batch=3, seed=0, document_mask=True)
    shards = TokenShards(tmp_path)
    wanted = {shards.locate(*shards.shard_of(place)).id for start in loader.starts(4) for place in range(start, start + 9)}
    assert loader.documents(4) == sorted(wanted)
    assert WindowLoader(Row(100), context=8, batch=3, seed=0, document_mask=True).documents(0) == []


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
    assert len(set(loader.documents(1)) ^ wanted) <= 2  # a document that is only an end, or equal ones, may have another's name
    copy = pickle.loads(pickle.dumps(loader))  # noqa: S301 - our own bytes
    assert all(torch.equal(a, b) for a, b in zip(copy.load(2), loader.load(2)))  # type: ignore[arg-type]
    assert PackedLoader(TokenShards(tmp_path), 16, 12, seed=0, document_mask=False).load(0)[2] is None


def test_threads_may_share_a_packed_loader(tmp_path) -> None:
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
    """In float64, the sum over packed rows is that of each document alone, a long one in the pieces of the plan."""
    from corpusmill.train.model import Llama, initialise
    from corpusmill.train.options import Architecture
    from corpusmill.train.parallel.model import LocalModel

    sets = random_documents(3, 12, 40, vocabulary_size=99)
    write_token_set(tmp_path, sets, vocabulary_size=99, pack=(16,))
    model = Llama(Architecture(vocab_size=99, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=16)).double()
    initialise(model, 0)
    model.lm_head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    model.model.layers["0"].self_attn.o_proj.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    loader, nats = PackedLoader(TokenShards(tmp_path), 16, 4, seed=0, document_mask=True), LocalModel(model, "fp32").nats
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


# ---- packing -----------------------------------------------------------------------------------------

# Packing loses no token, mixes no sequences, and is as tight as its figures say.


def sequence(ids, mask) -> Encoded:
    return Encoded(np.array(ids, np.int32), np.array(mask, np.bool_))


@st.composite
def sequences(draw):
    lengths = draw(st.lists(st.integers(2, 17), min_size=1, max_size=30))
    return [sequence(draw(st.lists(st.integers(4, 99), min_size=n, max_size=n)), [draw(st.booleans()) for _ in range(n)]) for n in lengths]


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


def test_places_are_full_of_any_token():
    assert pack([sequence([PAD_ID] * 9, [True] * 9), sequence([5] * 5, [True] * 5)], 16).fill == 12 / 16


def test_packed_rows_give_the_losses_of_lone_sequences():
    import torch

    from corpusmill.train.model import Llama, initialise
    from corpusmill.train.options import Architecture

    model = Llama(Architecture(vocab_size=99, layers=2, width=16, heads=2, kv_heads=1, head_dim=8, ffn=32, context=16)).double()
    initialise(model, 0)
    model.lm_head.weight.data.normal_(generator=torch.Generator().manual_seed(1))
    model.model.layers["0"].self_attn.o_proj.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    generator = np.random.default_rng(0)
    some = [sequence(generator.integers(4, 99, n), np.ones(n)) for n in (5, 7, 4, 9, 3)]
    packed = pack(some, 16)
    ids, targets, segments = (torch.from_numpy(a) for a in (packed.ids, packed.targets, packed.segments))
    together = model(ids, segments, targets=targets).double().sum()
    lone = ((torch.from_numpy(p.ids), torch.from_numpy(p.targets)) for p in (pack([one], 16) for one in some))
    alone = [model(ids, targets=targets).double().sum() for ids, targets in lone]
    torch.testing.assert_close(together, sum(alone), rtol=1e-12, atol=0)


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


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 0), (1, 5), (2, 0), (2, 4), (3, 1), (4, 2), (12, 0)])
def test_all_processes_together_have_the_steps(loader, world, micro_batch) -> None:
    wanted = rows(loader.load(step) for step in range(3))
    parts = [list(TokenDataset(loader, micro_batch, rank, world, steps=3)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    found = rows(batch for together in zip(*parts) for batch in together)
    assert found == wanted
    assert all(len(batch[0]) <= (micro_batch or 12 // world) for part in parts for batch in part)


def test_workers_give_the_order_of_none(loader) -> None:
    dataset = TokenDataset(loader, 5, steps=4)
    wanted = rows(TokenDataset(loader, 5, steps=4))
    assert rows(DataLoader(dataset, batch_size=None, num_workers=1)) == wanted
    assert rows(dataset.batches(2)) == wanted and dataset.state_dict() == {"samples": 48}


def test_a_worker_that_is_started_anew_opens_the_shards_for_itself(tmp_path) -> None:
    loader = loader_of(PackedLoader, tmp_path)
    found = DataLoader(TokenDataset(loader, 6, steps=2), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert rows(found) == rows(TokenDataset(loader, 6, steps=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_one_integer_goes_on_with_other_processes_and_micro_batches(loader, workers) -> None:
    wanted = rows(TokenDataset(loader, steps=5))
    first = TokenDataset(loader, 4)
    begun = []
    for batch in first.batches(workers):
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
    dataset.load_state_dict({"samples": 6})
    assert dataset.state_dict() == {"samples": 6} and len(next(iter(dataset))[0]) == 2


def test_step_a_million_is_there_at_once(loader) -> None:
    dataset = TokenDataset(loader)
    dataset.load_state_dict({"samples": 12 * 1_000_000})
    assert all(torch.equal(a, b) for a, b in zip(next(iter(dataset)), loader.load(1_000_000)))
    assert dataset.state_dict() == {"samples": 12 * 1_000_001}


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 1), (0, 5)])
def test_shares_that_are_not_equal_are_refused(loader, rank, world) -> None:
    with pytest.raises(ValueError, match="every process needs an equal share"):
        TokenDataset(loader, 0, rank, world)
