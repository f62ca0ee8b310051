"""Generation: the cache changes nothing, the context is no cliff, the terminal is safe."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, PAD_ID, SPECIAL_TOKENS
from corpusmill.train.architecture import Architecture
from corpusmill.train.checkpoint import save_model
from corpusmill.train.generate import complete, generate, load_for_generation, stream_text
from corpusmill.train.model import Llama
from corpusmill.train.sampling import choose, plain

TEXT = "the cat sat on the mat, größe 東京 🙂"


def byte_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def random_model(context: int = 32) -> Llama:
    model = Llama(Architecture(vocab_size=280, layers=2, width=32, heads=4, kv_heads=2, head_dim=8, ffn=48, context=context))
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3 + (p.dim() == 1)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate") / "model"
    save_model(random_model(), folder, {"tokenizer.json": byte_tokenizer().to_str().encode()})
    return folder


def test_greedy_with_cache_equals_the_whole_sequence_each_time() -> None:
    model, seen = random_model(), [5, 6, 7]
    for token in generate(model, seen, max_tokens=20, temperature=0):
        with torch.no_grad():
            assert token == int(model(torch.tensor([seen]))[0, -1].argmax())
        seen.append(token)
    assert len(seen) == 23


def test_greedy_equals_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder)
    expected = theirs.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=20, do_sample=False, eos_token_id=-1)[0, 3:].tolist()
    assert list(generate(random_model(), [5, 6, 7], max_tokens=20, temperature=0)) == expected


def test_equal_seeds_give_equal_tokens() -> None:
    one, two, other = (list(generate(random_model(), [5], max_tokens=20, seed=seed)) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("prompt", [1, 30, 31, 32, 33, 200])
@pytest.mark.parametrize("context", [2, 32])
def test_prompts_and_texts_beyond_the_context(prompt: int, context: int) -> None:
    tokens = list(generate(random_model(context), [5] * prompt, max_tokens=100, seed=3, banned=(PAD_ID,)))
    assert len(tokens) == 100 and PAD_ID not in tokens


def test_a_stop_token_ends_the_text_and_is_not_given_out() -> None:
    tokens = list(generate(random_model(), [5], max_tokens=20, seed=1))
    assert list(generate(random_model(), [5], max_tokens=20, seed=1, stop={tokens[7]})) == tokens[: tokens.index(tokens[7])]
    with pytest.raises(InputError, match="the prompt has no token"):
        list(generate(random_model(), [], max_tokens=1))


def test_choices_follow_the_probabilities_and_their_limits() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def shares(temperature: float, top_k: int, top_p: float) -> list[float]:
        drawn = [choose(logits, temperature, top_k, top_p, generator) for _ in range(2000)]
        return [drawn.count(i) / 2000 for i in range(4)]

    assert shares(1.0, 0, 1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.05)
    assert shares(1.0, 2, 1.0) == pytest.approx([0.625, 0.375, 0, 0], abs=0.05)
    assert shares(1.0, 0, 0.79) == pytest.approx([0.625, 0.375, 0, 0], abs=0.05)  # 0.5 + 0.3 reach it
    assert shares(1.0, 0, 0.81)[2] > 0 and shares(1.0, 0, 0.81)[3] == 0
    assert shares(1.0, 0, 0.0) == [1, 0, 0, 0] and shares(0.0, 0, 1.0) == [1, 0, 0, 0]
    assert shares(0.5, 0, 1.0)[0] == pytest.approx(0.25 / 0.365, abs=0.05)


def test_streamed_text_is_the_text_in_whole_characters() -> None:
    tokenizer = byte_tokenizer()
    pieces = list(stream_text(tokenizer, iter(tokenizer.encode(TEXT).ids)))
    assert "".join(pieces) == TEXT and not any("\ufffd" in piece for piece in pieces)
    broken = list(stream_text(tokenizer, iter(tokenizer.encode("🙂").ids[:-1])))
    assert set("".join(broken)) == {"\ufffd"}


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    assert plain("a\x1b[31mb\x07\x9b2Jc\r\u202ed\x00\ne\tf") == "a[31mb2Jcd\ne\tf"
    tokenizer = byte_tokenizer()
    assert "".join(stream_text(tokenizer, iter(tokenizer.encode("\x1b]0;title\x07x").ids))) == "]0;titlex"


def test_complete_speaks_from_a_folder(folder: Path) -> None:
    text = "".join(complete(folder, "the cat", max_tokens=12, seed=1))
    assert text.startswith("the cat") and text == "".join(complete(folder, "the cat", max_tokens=12, seed=1))
    speaker = load_for_generation(folder)
    assert {EOT_ID, IM_END_ID} <= speaker.stop and speaker.begin == (EOT_ID,) and speaker.banned == (PAD_ID,)
    assert speaker.tokenizer.encode("<|endoftext|>", add_special_tokens=False).ids.count(EOT_ID) == 0
    assert "".join(complete(folder, "", max_tokens=3, seed=1)) != ""


def test_folders_that_cannot_speak(folder: Path, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", {})
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        load_for_generation(tmp_path / "m")
    save_model(random_model(), tmp_path / "m", {"tokenizer.json": json.dumps({"model": {"vocab": {}}}).encode()})
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        load_for_generation(tmp_path / "m")
    with pytest.raises(InputError, match="no such model folder"):
        list(complete(tmp_path / "nothing", "x"))
