"""Compares the effect of options on logits and on generated text with `transformers`, value for value."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import random_ids, random_model
from speaking import TEXT, byte_tokenizer
from tokenizers import Tokenizer, decoders, models
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
from corpusmill.train.generate import (
    GREEDY,
    LENGTH,
    STOP_STRING,
    STOP_TOKEN,
    Draft,
    Sampling,
    choose,
    generate_batch,
    json_line,
    penalise,
    plain,
    warp,
)
from corpusmill.train.model import Llama
from corpusmill.train.options import LoraConfig
from corpusmill.train.sft import adapt, adapters

# ---- sampling ----------------------------------------------------------------------------------------

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
    """Returns multiples of `step`, so that many are equal; with 0 all differ."""
    logits = torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4
    return (logits / step).round() * step if step else logits


def theirs(sampling: Sampling, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Applies the processors of `transformers` in the order of its `generate`."""
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


@settings(max_examples=40, deadline=None)
@given(SAMPLINGS, st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 2.0]))
def test_options_equal_transformers_value_for_value(sampling: Sampling, seed: int, step: float) -> None:
    logits = random_logits(seed, step=step)
    ids = torch.randint(VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(3, VOCABULARY, dtype=torch.bool).scatter(1, ids, True)
    ours = warp(penalise(logits, seen, sampling.repetition_penalty), sampling)
    assert torch.equal(ours, theirs(sampling, ids, logits))


@settings(max_examples=40, deadline=None)
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
    assert choose(logits[1:2], sampling, uniform[1:2]).tolist() == chosen[1:2].tolist()  # whatever its neighbours are


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_logits_that_are_no_numbers_are_no_text(sampling: Sampling) -> None:
    logits = random_logits(0)
    logits[1, 5] = torch.nan
    with pytest.raises(CorpusmillError, match="not numbers"):
        choose(logits, sampling, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(("shape", "penalty"), [({"kv_heads": 2}, 1.0), ({"kv_heads": 4, "window": 6}, 1.3)])
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


# ---- draft -------------------------------------------------------------------------------------------

# Text that streams: whole characters, stop strings across tokens, no control of a terminal.

TOKENIZER = byte_tokenizer()
BEGIN = TOKENIZER.encode("\n").ids


class Pieces:
    """A tokenizer whose ids stand for given pieces of text."""

    def __init__(self, pieces: list[str]):
        self.pieces = pieces

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(self.pieces[number] for number in ids)


def written(draft: Draft, tokens: list[int]) -> list[str]:
    """Returns the text that each token adds. The text ends with the last one."""
    pieces = []
    for token in tokens:
        before = draft.text
        draft.add(token, (), len(tokens))
        assert draft.text.startswith(before)
        pieces.append(draft.text[len(before) :])
        if draft.ended:
            break
    return pieces


def before_first_stop(text: str, stops: list[str]) -> str:
    """Returns, character by character, the text before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return text


def test_streamed_text_is_the_text_in_whole_characters() -> None:
    pieces = written(Draft(BEGIN, 0, TOKENIZER), TOKENIZER.encode(TEXT).ids)
    assert "".join(pieces) == TEXT and not any("\ufffd" in piece for piece in pieces)
    broken = written(Draft(BEGIN, 0, TOKENIZER), TOKENIZER.encode("🙂").ids[:-1])
    assert set("".join(broken)) == {"\ufffd"}
    first = TOKENIZER.encode("🙂").ids[0]
    endless = written(Draft(BEGIN, 0, TOKENIZER), [first] * 20)
    assert "".join(endless) == "\ufffd" * 20 and endless[7] == "\ufffd" * 8  # bytes that are no text are not waited for


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_before_its_first_stop_string_however_tokens_cut_it(pieces: list[str], stops: list[str]) -> None:
    whole = before_first_stop("".join(pieces), stops)
    draft = Draft([-1], 0, Pieces([*pieces, ""]), stops)
    given_out = written(draft, list(range(len(pieces))))
    assert "".join(given_out) == whole and (draft.ended == STOP_STRING) == (whole != "".join(pieces))


def test_what_may_become_a_stop_string_is_held_back_and_no_more() -> None:
    pieces = ["Q: one", "\n", "\nA", "\n", "\n", "Q", ":", "more", ""]
    draft = Draft([-1], 0, Pieces(pieces), ["\n\nQ:"])
    assert written(draft, list(range(8))) == ["Q: one", "", "\n\nA", "", "", "", ""] and draft.ended == STOP_STRING
    assert written(Draft([-1], 0, Pieces(pieces), ["\n\nQ:"]), [0, 1]) == ["Q: one", "\n"]  # the text ends, so nothing is held back
    with pytest.raises(InputError, match="can't be empty"):
        Draft(BEGIN, 0, TOKENIZER, ["x", ""])


def test_tokenizers_that_mark_spaces_keep_them() -> None:
    words = ["▁the", "▁cat", "s", "<0xE6>", "<0x9D>", "<0xB1>"]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    ids = [0, 1, 2, 3, 4, 5, 1]
    assert written(Draft([2], 0, tokenizer), ids) == [" the", " cat", "s", "", "", "東", " cat"]  # it continues a word
    assert written(Draft([3], 0, tokenizer), ids)[:3] == ["the", " cat", "s"]  # there is nothing to continue


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    assert plain("a\x1b[31mb\x07\x9b2Jc\r\u202ed\x00\ne\tf\u061c") == "a[31mb2Jcd\ne\tf"
    hostile = "\x1b[2J\x9b\u202e\r\n東京 \ud83d"
    line = json_line({"text": hostile})
    assert plain(line) == line and "\n" not in line and json.loads(line) == {"text": hostile}


# ---- generate ----------------------------------------------------------------------------------------

# Tokens one after the other: the cache changes nothing, and the end of the context is no break.


def generate(model: Llama, prompt: list[int], **options: object) -> list[int]:
    """Returns the tokens of one text."""
    return next(generate_batch(model, [prompt], **options)).tokens


def without_cache(model: Llama, prompt: list[int], count: int) -> list[int]:
    """Returns the most likely tokens, each from the whole window anew: beyond the context the older half is forgotten."""
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


SHAPES: list[dict[str, object]] = [
    {"kv_heads": 4, "tied": True, "context": 20},
    {"kv_heads": 1, "window": 6, "context": 20},
    {"window": 6, "context": 1},
    {"qk_norm": True, "head_dim": 32, "context": 20},
    {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}, "window": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_with_cache_equals_the_whole_window_each_time(shape: dict[str, object]) -> None:
    model = random_model(**shape).double()
    for prompt in (1, 19, 50):
        ids = random_ids((1, prompt)).tolist()[0]
        assert generate(model, ids, max_tokens=20, sampling=GREEDY) == without_cache(model, ids, 20)


def test_a_model_with_adapters_or_hooks_generates_what_it_computes() -> None:
    model = random_model().double()
    with model.model.layers["1"].register_forward_hook(lambda module, given, found: found * 2):
        assert generate(model, [5, 6], max_tokens=10, sampling=GREEDY) == without_cache(model, [5, 6], 10)
    adapt(model, LoraConfig(rank=2), seed=0)
    for module in adapters(model).values():
        module.lora_B.data.normal_(generator=torch.Generator().manual_seed(1))
    assert generate(model, [5, 6], max_tokens=10, sampling=GREEDY) == without_cache(model, [5, 6], 10)


# ---- generate batch ----------------------------------------------------------------------------------

# Many prompts at a time: each text is the same as for its prompt alone, and nothing is computed needlessly.


def prompts_of(lengths: list[int]) -> list[list[int]]:
    return [random_ids((1, length), seed).tolist()[0] for seed, length in enumerate(lengths)]


@pytest.mark.parametrize(("context", "window"), [(24, 0), (24, 6)])
@pytest.mark.rounding
def test_every_text_is_the_one_of_its_prompt_alone(context: int, window: int) -> None:
    model = random_model(layers=1, window=window, context=context).double()
    generator = random.Random(context)
    for rows in (3, 16):
        prompts = prompts_of([generator.choice([1, 3, 7, 22, 23, 24, 30]) for _ in range(6)])
        sampling = Sampling(temperature=generator.choice([0, 0.8]), repetition_penalty=generator.choice([1, 1.3]), top_k=5)
        count = generator.choice([5, 20, 30])
        together = [text.tokens for text in generate_batch(model, prompts, max_tokens=count, sampling=sampling, rows=rows, stop={5})]
        alone = [
            generate(model, prompt, max_tokens=count, sampling=replace(sampling, seed=number), stop={5})
            for number, prompt in enumerate(prompts)
        ]
        assert together == alone and any(len(tokens) == count for tokens in alone)


@pytest.mark.rounding
def test_seeds_belong_to_texts_and_not_to_rows() -> None:
    model, prompts = random_model(layers=1).double(), prompts_of([3, 4, 5])
    texts = [text.tokens for text in generate_batch(model, prompts, max_tokens=10, seeds=[7, 8, 9])]
    turned = [text.tokens for text in generate_batch(model, prompts[::-1], max_tokens=10, seeds=[9, 8, 7], rows=2)]
    assert turned == texts[::-1]
    same = [text.tokens for text in generate_batch(model, [prompts[0]] * 2, max_tokens=10, seeds=[7, 7])]
    assert same == [texts[0]] * 2


@pytest.mark.rounding
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
