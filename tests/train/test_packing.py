"""Packing loses no token, mixes no sequences, and is as tight as it says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.special_tokens import PAD_ID
from corpusmill.train.packing import IGNORED, pack
from corpusmill.train.template import Encoded


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

    from corpusmill.train.architecture import Architecture
    from corpusmill.train.model import Llama, initialise

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
