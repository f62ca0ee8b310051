"""Many prompts at a time: each text is the one that its prompt gives alone, and nothing is computed for nothing."""

import random
from dataclasses import replace

import pytest
import torch
from small_models import random_ids, random_model
from speaking import byte_tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.train.generate import LENGTH, STOP_STRING, STOP_TOKEN, Draft, generate, generate_batch, write
from corpusmill.train.kv_cache import KVCache
from corpusmill.train.model import Llama
from corpusmill.train.sampling import GREEDY, Sampling

pytestmark = pytest.mark.rounding


def prompts_of(lengths: list[int]) -> list[list[int]]:
    return [random_ids((1, length), seed).tolist()[0] for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("window", [0, 6])
def test_rows_of_different_beginnings_have_the_logits_of_each_alone(window: int) -> None:
    model = random_model(window=window).double()
    rows = prompts_of([20, 3, 11])
    cache = KVCache(40, window)
    cache.length, cache.starts = 20, [20, 20, 20]
    ids = random_ids((3, 7), seed=9)
    with torch.no_grad():
        for row, prompt in enumerate(rows):
            alone = model.new_cache()
            model(torch.tensor([prompt]), cache=alone)
            cache.put(row, alone, 0, rows=3)
        found = torch.cat([model(part, cache=cache) for part in ids.split([1, 4, 1, 1], dim=1)], dim=1)
        cache.drop(0)  # the last row takes its place
        cache.shift(min(cache.starts))
        further = model(torch.tensor([[8], [9]]), cache=cache)
        for row, prompt in enumerate(rows):
            whole = model(torch.tensor([[*prompt, *ids[row].tolist()]]))[:, -7:]
            torch.testing.assert_close(found[row : row + 1], whole, rtol=0, atol=1e-10)
        for row, (prompt, its) in enumerate([(rows[2], ids[2]), (rows[1], ids[1])]):
            whole = model(torch.tensor([[*prompt, *its.tolist(), 8 + row]]))[:, -1:]
            torch.testing.assert_close(further[row : row + 1], whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("context", [1, 2, 24])
def test_every_text_is_the_one_of_its_prompt_alone(context: int, window: int) -> None:
    model = random_model(layers=1, window=window, context=context).double()
    generator = random.Random(context)
    for rows in (1, 3, 16):
        prompts = prompts_of([generator.choice([1, 3, 7, 22, 23, 24, 30]) for _ in range(6)])
        sampling = Sampling(temperature=generator.choice([0, 0.8]), repetition_penalty=generator.choice([1, 1.3]), top_k=5)
        count = generator.choice([5, 30, 50])
        together = [text.tokens for text in generate_batch(model, prompts, max_tokens=count, sampling=sampling, rows=rows, stop={5})]
        alone = [
            list(generate(model, prompt, max_tokens=count, sampling=replace(sampling, seed=number), stop={5}))
            for number, prompt in enumerate(prompts)
        ]
        assert together == alone and any(len(tokens) == count for tokens in alone)


def test_a_window_slides_where_the_cache_is_full_and_the_others_need_little() -> None:
    model = random_model(layers=1, context=8).double()
    prompts = prompts_of([1, 5, 1])
    for tokens in range(1, 8):  # of the second text: the third one begins then, and at one of these the two things meet
        drafts = [Draft(prompt, 0) for prompt in prompts]
        for draft, _ in write(model, drafts, max_tokens=30, sampling=GREEDY, stop=(), banned=(), rows=2):
            if draft is drafts[1] and len(draft.tokens) == tokens:
                draft.ended = "enough"
        for draft in drafts:
            assert draft.tokens == list(generate(model, draft.prompt, max_tokens=len(draft.tokens), sampling=GREEDY))
        assert [len(draft.tokens) for draft in drafts] == [30, tokens, 30]


def watched(model: Llama) -> list[tuple[int, int]]:
    """Rows and tokens of every call of the model, as they come."""
    calls: list[tuple[int, int]] = []
    model.model.register_forward_pre_hook(lambda module, given: calls.append(tuple(given[0].shape)))
    return calls


def test_rows_that_ended_are_not_computed_and_give_their_place_away() -> None:
    model, prompts = random_model(), prompts_of([3, 3, 5, 4, 3, 6])
    lengths = [len(list(generate(model, prompt, max_tokens=30, sampling=GREEDY, stop=set(range(12))))) for prompt in prompts]
    assert len(set(lengths)) > 2
    calls = watched(model)
    texts = list(generate_batch(model, prompts, max_tokens=30, sampling=GREEDY, stop=set(range(12)), rows=3))
    assert [len(text.tokens) for text in texts] == lengths and max(rows for rows, _ in calls) <= 3
    steps = sum(rows for rows, tokens in calls if tokens == 1)
    needed = sum(length - (length == 30) for length in lengths)
    assert needed <= steps <= needed + len(prompts)  # a row that begins anew goes along for one step
    assert [tokens for _, tokens in calls].count(3) == 2  # the first two prompts are read together


def test_texts_come_in_order_and_as_soon_as_they_can() -> None:
    model, prompts = random_model(), prompts_of([3, 4, 5])
    calls = watched(model)
    texts = generate_batch(model, prompts, max_tokens=10, sampling=GREEDY, rows=1)
    first = next(texts)
    assert len(first.tokens) == 10 and sum(rows for rows, _ in calls) <= 11
    assert [first.tokens, *(text.tokens for text in texts)] == [list(generate(model, p, max_tokens=10, sampling=GREEDY)) for p in prompts]


def test_seeds_belong_to_texts_and_not_to_rows() -> None:
    model, prompts = random_model(layers=1).double(), prompts_of([3, 4, 5])
    texts = [text.tokens for text in generate_batch(model, prompts, max_tokens=10, seeds=[7, 8, 9])]
    turned = [text.tokens for text in generate_batch(model, prompts[::-1], max_tokens=10, seeds=[9, 8, 7], rows=2)]
    assert turned == texts[::-1]
    same = [text.tokens for text in generate_batch(model, [prompts[0]] * 2, max_tokens=10, seeds=[7, 7])]
    assert same == [texts[0]] * 2


def test_why_a_text_ended_and_what_of_it_is_given_out() -> None:
    tokenizer = byte_tokenizer()
    model = random_model(vocab_size=280)
    (whole,) = generate_batch(model, [[5, 6]], max_tokens=30, sampling=GREEDY, tokenizer=tokenizer)
    assert whole.ended == LENGTH and whole.text == tokenizer.decode(whole.tokens) and len(whole.tokens) == 30
    stop = whole.text[5:9]
    prompts = [[5, 6], [5, 6], [5, 6]]
    (text, _, _) = generate_batch(model, prompts, max_tokens=30, sampling=GREEDY, tokenizer=tokenizer, stop_strings=[stop])
    assert text.ended == STOP_STRING and text.text == whole.text[: whole.text.index(stop)] and len(text.tokens) < 30
    (text,) = generate_batch(model, [[5, 6]], max_tokens=30, sampling=GREEDY, tokenizer=tokenizer, stop=[whole.tokens[3]])
    assert text.ended == STOP_TOKEN and text.tokens == whole.tokens[: whole.tokens.index(whole.tokens[3])]
    assert list(generate_batch(model, [], max_tokens=3)) == []


def test_a_prompt_that_is_refused_is_named_before_anything_is_written() -> None:
    model = random_model(context=20)
    calls = watched(model)
    with pytest.raises(InputError, match=r"^prompt 2 has 16 tokens, which with 5 to come are more than the model's context of 20"):
        generate_batch(model, prompts_of([3, 16]), max_tokens=5, overflow="refuse")
    with pytest.raises(InputError, match="the prompt has no token"):
        generate_batch(model, [[1], []], max_tokens=5)
    with pytest.raises(InputError, match="need a tokenizer"):
        generate_batch(model, [[1]], max_tokens=5, stop_strings=["x"])
    assert calls == []
