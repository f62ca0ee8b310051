"""Masks, windows, documents and the cache say the same; the kernels agree; nothing seen gives 0."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_ids, random_model
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from corpusmill.train.attention import PLAIN, attend
from corpusmill.train.visibility import block_mask, dense_mask, document_starts, visible

CPU = torch.device("cpu")


def random_heads(batch: int, heads: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(batch, heads, length, 16, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_hand(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """softmax(QK' / sqrt(d)) V written out, each key-value head repeated for its queries."""
    times = queries.size(1) // keys.size(1)
    keys, values = keys.repeat_interleave(times, 1), values.repeat_interleave(times, 1)
    scores = (queries @ keys.mT / queries.size(-1) ** 0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ values


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("window", [0, 1, 5, 30])
def test_attention_equals_the_formula(kv_heads: int, window: int) -> None:
    queries, keys, values = random_heads(2, 4, 20), random_heads(2, kv_heads, 20, seed=1), random_heads(2, kv_heads, 20, seed=2)
    seen = torch.tensor([[k <= q and (not window or k > q - window) for k in range(20)] for q in range(20)])
    mixed = attend(queries, keys, values, visible(None, 0, 20, window, CPU))
    torch.testing.assert_close(mixed, by_hand(queries, keys, values, seen), rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [1, 2, 64, PLAIN, PLAIN + 1])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_bf16_on_a_cpu_is_within_its_rounding_by_either_kernel(length: int, kv_heads: int) -> None:
    given = [random_heads(2, n, length, torch.bfloat16, seed).requires_grad_() for seed, n in enumerate((4, kv_heads, kv_heads))]
    exact = [heads.detach().double().requires_grad_() for heads in given]
    direction = random_heads(2, 4, length, seed=9)
    mixed = attend(*given, None)
    expected = by_hand(*exact, torch.ones(length, length, dtype=torch.bool).tril())
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.double(), expected, rtol=0.02, atol=0.02)
    found = torch.autograd.grad(mixed, given, direction.bfloat16())
    for gradient, wanted in zip(found, torch.autograd.grad(expected, exact, direction), strict=True):
        assert (gradient.double() - wanted).norm() < 0.02 * wanted.norm() + 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_a_query_that_sees_nothing_gets_0_and_no_nan_flows_back(dtype: torch.dtype, kv_heads: int) -> None:
    queries, keys, values = (random_heads(1, n, 6, dtype, seed).requires_grad_() for seed, n in enumerate((4, kv_heads, kv_heads)))
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    seen[[0, 3]] = False
    mixed = attend(queries, keys, values, seen)
    mixed.sum().backward()
    assert (mixed[:, :, [0, 3]] == 0).all() and (mixed[:, :, [1, 2, 4, 5]] != 0).any(-1).all()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (queries, keys, values))
    assert queries.grad is not None and (queries.grad[:, :, [0, 3]] == 0).all()


def segments_of(lengths: list[int]) -> Tensor:
    """One row of documents of these lengths; numbers that only change, as loaders give them."""
    return torch.repeat_interleave(torch.arange(len(lengths)) % 3 * 7, torch.tensor(lengths))[None]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=5), min_size=1, max_size=3), st.sampled_from([0, 1, 4, 9]))
def test_packed_documents_are_computed_as_if_each_were_alone(rows: list[list[int]], window: int) -> None:
    model = random_model(window=window, qk_norm=True).double()
    length = max(map(sum, rows))
    lengths = [[*row, length - sum(row)] if sum(row) < length else row for row in rows]
    segments = torch.cat([segments_of(row) for row in lengths])
    ids = random_ids((len(rows), length), seed=length)
    with torch.no_grad():
        packed = model(ids, segments)
        alone = [torch.cat([model(part) for part in row[None].split(sizes, dim=1)], dim=1) for row, sizes in zip(ids, lengths)]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-10)


def test_documents_begin_where_the_number_changes_even_to_one_that_was_there_before() -> None:
    starts = document_starts(torch.tensor([[5, 5, 0, 5, 5, 5], [1, 1, 1, 1, 1, 1]]))
    assert starts is not None and starts.tolist() == [[0, 0, 2, 3, 3, 3], [0] * 6]


@pytest.mark.parametrize("window", [0, 1, 8, 100])
@pytest.mark.parametrize("documents", [False, True])
def test_flex_attention_equals_the_dense_mask(documents: bool, window: int) -> None:
    """Forward alone and in fp32: that is what the CPU has of it."""
    length = 150  # more than a block of 128
    starts = document_starts(torch.cat([segments_of([70, 1, 79]), segments_of([5, 145])])) if documents else torch.zeros(1, length).long()
    assert starts is not None
    earliest = torch.maximum(starts, torch.arange(length) - (window - 1 if window else length))
    heads = [random_heads(2, n, length, torch.float32, seed) for seed, n in enumerate((4, 2, 2))]
    with torch.no_grad():
        flex = flex_attention(*heads, block_mask=block_mask(earliest if documents else earliest[0]), enable_gqa=True)
        dense = attend(*heads, dense_mask(earliest))
    torch.testing.assert_close(flex, dense, rtol=0, atol=2e-6)


def test_a_row_of_one_document_takes_the_causal_path() -> None:
    one, two = torch.full((2, 9), 4), torch.cat([segments_of([9]), segments_of([4, 5])])
    assert document_starts(None) is None and document_starts(one) is None and document_starts(two) is not None
    assert visible(None, 0, 9, 0, CPU) is None
    assert visible(None, 0, 9, 9, CPU) is None  # a window that is no shorter than the text
    mask = visible(None, 0, 9, 8, CPU)
    assert isinstance(mask, Tensor) and not mask[8, 0] and mask[7, 0]
    model = random_model()
    ids = random_ids((2, 9))
    assert torch.equal(model(ids, one), model(ids))


@pytest.mark.parametrize("window", [0, 1, 6, 25])
def test_the_cache_in_any_pieces_equals_no_cache(window: int) -> None:
    model = random_model(window=window).double()
    ids = random_ids((2, 40))
    for pieces in ([40], [1] * 40, [7, 1, 1, 20, 11]):
        cache = model.new_cache(40)
        with torch.no_grad():
            cached = torch.cat([model(part, cache=cache) for part in ids.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cached, model(ids), rtol=0, atol=1e-10)


def test_a_window_with_a_cache_looks_at_no_key_beyond_it() -> None:
    model = random_model(window=6)
    cache = model.new_cache(20)
    with torch.no_grad():
        model(random_ids((1, 12)), cache=cache)
        for keys, values in cache.layers.values():
            keys[:, :, :7], values[:, :, :7] = torch.nan, torch.nan  # the next token, at 12, sees 7 to 12
        assert model(random_ids((1, 1)), cache=cache).isfinite().all()


def test_padding_on_the_right_changes_nothing() -> None:
    model = random_model().double()
    ids = random_ids((1, 20))
    padded = torch.cat([ids, torch.ones(1, 12, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(model(padded)[:, :20], model(ids), rtol=0, atol=1e-10)
