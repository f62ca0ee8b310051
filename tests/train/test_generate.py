"""Tokens one after the other: the cache changes nothing, and the context is no cliff."""

import pytest
import torch
from small_models import random_ids, random_model

from corpusmill.pipeline.errors import InputError
from corpusmill.train.generate import generate
from corpusmill.train.model import Llama
from corpusmill.train.sampling import GREEDY, Sampling


def without_cache(model: Llama, prompt: list[int], count: int) -> list[int]:
    """The most likely tokens, each from the whole window anew: beyond the context the older half is forgotten."""
    context, seen = model.arch.context, list(prompt)
    window = seen[-max(1, context - 1) :]
    for _ in range(count):
        with torch.no_grad():
            token = int(model(torch.tensor([window]))[0, -1].argmax())
        seen.append(token)
        window.append(token)
        if len(window) > context:
            window = seen[-max(1, context // 2) :]
    return seen[len(prompt) :]


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize(("context", "prompt"), [(64, 5), (20, 1), (20, 19), (20, 20), (20, 50), (2, 3), (1, 2)])
def test_greedy_with_cache_equals_the_whole_window_each_time(window: int, context: int, prompt: int) -> None:
    model = random_model(window=window, context=context).double()
    ids = random_ids((1, prompt)).tolist()[0]
    assert list(generate(model, ids, max_tokens=45, sampling=GREEDY)) == without_cache(model, ids, 45)


def test_equal_seeds_give_equal_tokens() -> None:
    model = random_model()
    one, two, other = (list(generate(model, [5], max_tokens=20, sampling=Sampling(seed=seed))) for seed in (1, 1, 2))
    assert one == two != other


def test_banned_tokens_never_come_and_a_stop_token_is_not_given_out() -> None:
    model, sampling = random_model(), Sampling(seed=1)
    tokens = list(generate(model, [5], max_tokens=40, sampling=sampling))
    without = list(generate(model, [5], max_tokens=200, sampling=sampling, banned=tokens))
    assert len(without) == 200 and not set(without) & set(tokens)
    assert list(generate(model, [5], max_tokens=40, sampling=sampling, stop={tokens[7]})) == tokens[: tokens.index(tokens[7])]
    assert list(generate(model, [5], max_tokens=0)) == []


def test_a_penalty_lasts_beyond_the_window() -> None:
    """With such a penalty a positive logit is as good as 0 and a negative one hopeless, also once its token has left the context."""
    model = random_model(context=8)
    tokens = list(generate(model, [5, 6], max_tokens=40, sampling=Sampling(temperature=0, repetition_penalty=1e6)))
    assert len({5, 6, *tokens}) == 42


def test_what_outgrows_the_context_is_refused_before_anything_is_written() -> None:
    model = random_model(context=20)
    assert len(list(generate(model, [5] * 12, max_tokens=8, overflow="refuse"))) == 8
    with pytest.raises(InputError, match=r"^the prompt has 13 tokens, which with 8 to come are more than the model's context of 20: "):
        generate(model, [5] * 13, max_tokens=8, overflow="refuse")
    with pytest.raises(InputError, match="the prompt has no token"):
        generate(model, [], max_tokens=1)
