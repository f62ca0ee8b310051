"""Windows: the same for any cut into micro-batches, each once an epoch, with the borders of their documents."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID
from corpusmill.train.loader import WindowLoader, evaluation_batches, to_batch
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
    targets = torch.cat([targets.flatten() for _, targets, _ in batches])
    assert targets.tolist() == list(range(tokens))


def test_a_glance_takes_spread_windows() -> None:
    batches = list(evaluation_batches(Row(801), context=8, batch=3, document_mask=False, windows=4))
    assert torch.cat([ids[:, 0] for ids, _, _ in batches]).tolist() == [EOT_ID, 199, 399, 599]


def test_too_few_tokens_are_a_sentence() -> None:
    with pytest.raises(InputError, match="too few: 8, and one window needs 9"):
        WindowLoader(Row(8), context=8, batch=1, seed=0, document_mask=False)
