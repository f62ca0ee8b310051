"""Tests a model folder that completes texts and answers messages, and its command."""

import gzip
import json
import os
import sys
from pathlib import Path
from shutil import copytree

import pytest
from small_models import random_model
from speaking import byte_tokenizer, speaking_folder
from tokenizers import Tokenizer

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, IM_START_ID, PAD_ID
from corpusmill.train.checkpoint import save_model
from corpusmill.train.generate import Draft, Sampling, TextGenerator, load_text_generator
from corpusmill.train.template import user_turn


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_folder(tmp_path_factory.mktemp("speaker") / "model")


@pytest.fixture(scope="module")
def generator(folder: Path) -> TextGenerator:
    return load_text_generator(folder, "cpu")


def test_what_ends_a_text_begins_it_and_is_never_written(generator: TextGenerator) -> None:
    assert generator.stop == {EOT_ID, IM_END_ID} and generator.begin == (EOT_ID,) and set(generator.banned) == {PAD_ID, IM_START_ID}
    assert generator.ids("<|endoftext|>").count(EOT_ID) == 1  # a name of a special token in a text is text
    chat = generator.ids("the cat", chat=True)
    assert chat == generator.encoder.encode([user_turn("the cat")], add_generation_prompt=True).ids.tolist() and IM_START_ID in chat
    with pytest.raises(InputError, match="character 3 of a prompt is not Unicode text"):
        generator.ids("ab\udc80")


def test_the_tokens_of_another_programs_folder(folder: Path, tmp_path: Path) -> None:
    other = copytree(folder, tmp_path / "other")
    tokenizer = Tokenizer.from_file(str(other / "tokenizer.json"))
    renamed = json.loads(tokenizer.to_str().replace("<|endoftext|>", "<s>").replace("<|im_end|>", "</s>").replace("<|im_start|>", "<unk>"))
    (other / "tokenizer.json").write_text(json.dumps(renamed))
    (other / "generation_config.json").write_text('{"bos_token_id": 0, "eos_token_id": [7]}')
    (other / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    generator = load_text_generator(other)
    assert (generator.stop, generator.begin, generator.banned) == ({3, 7}, (0,), (0, 1, 2))


def test_a_streamed_text_is_the_completed_one(generator: TextGenerator) -> None:
    sampling = Sampling(seed=4)
    (text,) = generator.complete(["the cat"], max_tokens=40, sampling=sampling)
    draft = Draft(generator.ids("the cat"), 4, generator.tokenizer, ["\x00\x01"])
    streamed = "".join(generator.stream(draft, 40, sampling))
    assert draft.text == text.text and draft.ended == text.ended
    assert text.text and streamed and [c for c in text.text if c.isalnum()] == [c for c in streamed if c.isalnum()]
    assert any(c != " " and not c.isprintable() for c in text.text)  # as it was written
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in streamed)  # as a terminal may have it


def test_the_command_gives_a_line_of_json_for_each_text(corpusmill, folder: Path, tmp_path: Path, generator: TextGenerator) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "größe"}\n{"prompt": "the mat"}\n')
    arguments = ("generate", folder, "--prompt", "the cat", "--prompts", tmp_path / "p.jsonl", "--max-tokens", 9, "--json")
    code, out, err = corpusmill(*arguments, "--samples", 2, "--seed", 5, "--top-k", 20)
    rows = [json.loads(line) for line in out.splitlines()]
    asked = ["the cat", "größe", "the mat"]
    expected = generator.complete(asked, samples=2, max_tokens=9, sampling=Sampling(top_k=20, seed=5))
    assert (code, err) == (0, "") and rows == [
        {"prompt": prompt, "text": text.text, "tokens": len(text.tokens), "ended": text.ended}
        for prompt, text in zip([prompt for prompt in asked for _ in range(2)], expected, strict=True)
    ]
    assert {row["ended"] for row in rows} <= {"length", "stop token"} and all(row["tokens"] <= 9 for row in rows)
    code, out, _ = corpusmill(*arguments, "--temperature", 0, "--stop", "zzz", "--chat")
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == asked


def test_the_command_writes_texts_for_people(corpusmill, folder: Path, tmp_path: Path) -> None:
    code, out, _ = corpusmill("generate", folder, "--prompt", "the \x1b[2Jcat", "--max-tokens", 30, "--seed", 1)
    assert code == 0 and out.startswith(b"the [2Jcat") and b"\x1b" not in out
    (tmp_path / "p.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo\n"))
    code, out, _ = corpusmill("generate", folder, "--prompts", tmp_path / "p.txt.gz", "--max-tokens", 2)
    assert code == 0 and b"--- 1 of 2: \none" in out and b"--- 2 of 2: \ntwo" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is no prompt"),
        (["--prompt", "x", "--top-p", "2"], "top_p has to be from 0 to 1, not 2.0"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: can't be read"),
    ],
)
def test_what_the_command_refuses_is_one_sentence_and_nothing_written(
    corpusmill, folder: Path, arguments: list[str], sentence: str
) -> None:
    code, out, err = corpusmill("generate", folder, *arguments)
    assert code == 2 and out == b"" and sentence in err and err.count("\n") == 1


def test_nobody_reads_on(corpusmill, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests a reader that stops early, as in `corpusmill generate ... | head`."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert corpusmill("generate", folder, "--prompt", "x", "--max-tokens", 2)[0] == 0


def test_folders_that_cannot_speak(folder: Path, tmp_path: Path) -> None:
    save_model(random_model(), tmp_path / "m", {})
    with pytest.raises(InputError, match=r"tokenizer\.json: no such file"):
        load_text_generator(tmp_path / "m")
    save_model(random_model(), tmp_path / "m", {"tokenizer.json": json.dumps({"model": {"vocab": {}}}).encode()})
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        load_text_generator(tmp_path / "m")
    save_model(random_model(vocab_size=280), tmp_path / "m", {"tokenizer.json": byte_tokenizer().to_str().encode()})
    (tmp_path / "m" / "generation_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"generation_config\.json: not a JSON object"):
        load_text_generator(tmp_path / "m")
    with pytest.raises(InputError, match="no such model folder"):
        load_text_generator(tmp_path / "nothing")
