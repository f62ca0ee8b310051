"""Windows: the same for any cut into micro-batches, each once an epoch, with the borders of their documents."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from token_sets import flat, random_documents, write_token_set

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.train.loader import WindowLoader, evaluation_batches, places, to_batch
from corpusmill.train.objective import Share
from corpusmill.train.permutation import permute
from corpusmill.train.token_array import TokenArray


class Row(TokenArray):
    """Token `i` at position `i`, so that a token says where it comes from."""

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
    def batches(share: Share) -> list:
        return list(evaluation_batches(Row(tokens), 8, batch, True, windows, share))

    def placed(found: list) -> list[int]:
        return sorted(p for places, (_, targets, _) in found for p in places[targets.numpy() >= 0].tolist())

    shares = [batches(Share(index, of)) for index in range(of)]
    assert sorted(chain.from_iterable(map(placed, shares))) == placed(batches(Share()))
    assert len({tuple(ids.shape for _, (ids, _, _) in share) for share in shares}) == 1
    assert len({ids.shape for share in shares for _, (ids, _, _) in share}) == 1


def test_a_glance_takes_spread_windows() -> None:
    batches = list(evaluation_batches(Row(801), context=8, batch=3, document_mask=False, windows=4))
    assert torch.cat([ids[:, 0] for _, (ids, _, _) in batches]).tolist() == [EOT_ID, 199, 399, 599]


def test_too_few_tokens_are_a_sentence() -> None:
    with pytest.raises(InputError, match="too few: 8, and one window needs 9"):
        WindowLoader(Row(8), context=8, batch=1, seed=0, document_mask=False)


SETS = st.lists(st.lists(st.lists(st.integers(1, 4095), max_size=6).map(lambda ids: [*ids, 0]), max_size=5), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(sets=SETS, context=st.integers(1, 9), wide=st.booleans(), output=st.sampled_from(["int64", "stored"]))
def test_windows_are_those_of_the_flat_row_across_all_borders(tmp_path_factory, sets, context, wide, output) -> None:
    row = np.array(flat(sets))
    assume(len(row) > context)
    folder = tmp_path_factory.mktemp("set")
    write_token_set(folder, sets, vocabulary_size=100_000 if wide else 4096)
    loader = WindowLoader(TokenShards(folder), context, batch=4, seed=1, document_mask=True, output=output)
    for step in range(3):
        ids, targets, segments = loader.load(step)
        assert ids.dtype == (torch.int64 if output == "int64" else torch.uint32 if wide else torch.uint16)
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
