"""What options do to logits and what a model then says: value for value as `transformers` has it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_model
from transformers import AutoModelForCausalLM
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.train.checkpoint import save_model
from corpusmill.train.generate import generate_batch
from corpusmill.train.sampling import GREEDY, Sampling, choose, keep_min_p, keep_top_k, keep_top_p, penalise, warp

VOCABULARY = 60
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 7, 59, 60, 1000]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    repetition_penalty=st.sampled_from([0.8, 1.0, 1.7]),
)


def random_logits(seed: int, rows: int = 3, step: float = 0.0) -> torch.Tensor:
    """Multiples of `step`, so that many are equal; 0: all differ."""
    logits = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4
    return (logits / step).round() * step if step else logits


def theirs(sampling: Sampling, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The processors of `transformers` in the order of its `generate`."""
    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1:
        chain.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chain.append(MinPLogitsWarper(sampling.min_p))
    return chain(ids, logits.clone())


@settings(max_examples=80, deadline=None)
@given(SAMPLINGS, st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 2.0]))
def test_options_equal_transformers_value_for_value(sampling: Sampling, seed: int, step: float) -> None:
    logits = random_logits(seed, step=step)
    ids = torch.randint(VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(3, VOCABULARY, dtype=torch.bool).scatter(1, ids, True)
    ours = warp(penalise(logits, seen, sampling.repetition_penalty), sampling)
    assert torch.equal(ours, theirs(sampling, ids, logits))


@settings(max_examples=80, deadline=None)
@given(SAMPLINGS, st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 2.0]))
def test_a_token_is_the_one_whose_share_a_number_falls_into(sampling: Sampling, seed: int, step: float) -> None:
    logits, uniform = random_logits(seed, step=step), torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    shares = warp(logits, sampling).double().softmax(-1)
    chosen = choose(logits, sampling, uniform)
    for row, token in enumerate(chosen.tolist()):
        if step:  # of equals at the border of top_p any may stay
            assert logits[row, token] >= logits[row][shares[row] > 0].min()
            continue
        before = shares[row, :token].sum()
        assert shares[row, token] > 0 and before - 1e-6 <= uniform[row] <= before + shares[row, token] + 1e-6
    assert choose(logits[1:2], sampling, uniform[1:2]).tolist() == chosen[1:2].tolist()  # whoever is beside it


def test_limits_by_their_definition() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()

    def kept(limited: torch.Tensor) -> list[bool]:
        return limited.isfinite().tolist()

    assert kept(keep_top_k(logits, 2)) == [True, True, False, False]
    assert kept(keep_top_p(logits, 0.79)) == [True, True, False, False]  # .5 + .3 reach it
    assert kept(keep_top_p(logits, 0.81)) == [True, True, True, False]
    assert kept(keep_top_p(logits, 0.0)) == [True, False, False, False]
    assert kept(keep_min_p(logits, 0.2)) == [True, True, True, False]
    ends = torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64)
    assert choose(logits.expand(2, -1), Sampling(temperature=1.0, top_k=3), ends).tolist() == [0, 2]
    assert choose(logits.expand(2, -1), GREEDY, ends).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("temperature", -1.0, "temperature has to be 0, or at least 0.001, not -1.0"),
        ("temperature", float("nan"), "temperature has to be"),
        ("top_k", -1, "top_k has to be 0 or more"),
        ("top_p", 1.5, "top_p has to be from 0 to 1"),
        ("min_p", -0.1, "min_p has to be from 0 to 1"),
        ("repetition_penalty", 0.0, "repetition_penalty has to be above 0"),
        ("seed", -1, "seed has to be 0 or more"),
    ],
)
def test_options_out_of_range_are_one_sentence(option: str, value: float, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        replace(GREEDY, **{option: value})


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(top_k=0)])
def test_logits_that_are_no_numbers_are_no_text(sampling: Sampling) -> None:
    logits = random_logits(0)
    logits[1, 5] = torch.nan
    with pytest.raises(CorpusmillError, match="not numbers"):
        choose(logits, sampling, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [{"kv_heads": 2}, {"kv_heads": 4, "window": 6}])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_texts_equal_transformers(tmp_path: Path, shape: dict[str, int], penalty: float) -> None:
    model = random_model(**shape)
    save_model(model, tmp_path / "model")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    prompts = [[5, 6, 7, 8, 9, 10, 11], [50], [20, 21, 22]]
    padded = torch.tensor([[1] * (7 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (7 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settled = {"do_sample": False, "eos_token_id": -1, "repetition_penalty": penalty}
    expected = peer.generate(padded, attention_mask=mask, max_new_tokens=20, **settled)[:, 7:].tolist()
    sampling = replace(GREEDY, repetition_penalty=penalty)
    assert [text.tokens for text in generate_batch(model, prompts, max_tokens=20, sampling=sampling)] == expected
