"""Every epoch sees every example once, in an order of its own."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.train.order import examples_of_step, steps_of


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_each_epoch_is_a_permutation(examples, batch, seed):
    steps = steps_of(3, batch, examples)
    seen = np.concatenate([examples_of_step(step, batch, examples, seed) for step in range(steps)])[: 3 * examples]
    for epoch in seen.reshape(3, examples):
        assert sorted(epoch) == list(range(examples))


def test_epochs_and_seeds_differ():
    first, second = examples_of_step(0, 50, 50, 1), examples_of_step(1, 50, 50, 1)
    assert first.tolist() != second.tolist() != examples_of_step(1, 50, 50, 2).tolist()


def test_steps():
    assert [steps_of(1, 8, 16), steps_of(1, 8, 17), steps_of(0.5, 8, 16), steps_of(2, 8, 3)] == [2, 3, 1, 1]
