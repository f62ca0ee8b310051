import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.transformer_model import batches, even_rows, padded_lengths

LONGEST = st.sampled_from([8, 96, 512, 1000, 8192])


@st.composite
def lengths(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    longest = draw(LONGEST)
    return np.array(draw(st.lists(st.integers(1, longest), max_size=200)), np.int64), longest


def test_padded_lengths() -> None:
    tokens = np.array([1, 7, 8, 63, 64, 127, 128, 129, 255, 256, 480, 511, 512])
    assert padded_lengths(tokens, 512).tolist() == [8, 8, 16, 64, 72, 128, 144, 144, 256, 288, 512, 512, 512]
    assert padded_lengths(np.array([99, 100]), 100).tolist() == [100, 100]


@given(lengths(), st.integers(1, 20000))
def test_every_sequence_is_in_one_batch_that_fits(drawn: tuple[np.ndarray, int], budget: int) -> None:
    tokens, longest = drawn
    found = list(batches(tokens, longest, budget))
    members = np.concatenate([batch.members for batch in found]) if found else np.zeros(0)
    assert sorted(members) == list(range(len(tokens)))
    for batch in found:
        assert 1 <= len(batch.members) <= batch.rows
        assert batch.rows == 1 or batch.rows * batch.length <= budget
        assert tokens[batch.members].max() <= batch.length <= longest
    assert [batch.length for batch in found] == sorted((batch.length for batch in found), reverse=True)


@given(lengths(), st.integers(1, 20000))
def test_the_shape_of_a_batch_depends_on_its_members_alone(drawn: tuple[np.ndarray, int], budget: int) -> None:
    """Each member alone gets the shape that it gets in company, and padding where its company has padding."""
    tokens, longest = drawn
    for batch in batches(tokens, longest, budget):
        assert len(set(tokens[batch.members] == batch.length)) == 1
        for count in set(tokens[batch.members].tolist()):
            (alone,) = batches(np.array([count]), longest, budget)
            assert (alone.rows, alone.length) == (batch.rows, batch.length)


def test_rows_are_powers_of_two() -> None:
    assert [even_rows(fit) for fit in (0, 1, 2, 3, 4, 5, 7, 8, 31, 32)] == [1, 1, 1, 1, 4, 4, 4, 8, 16, 32]
