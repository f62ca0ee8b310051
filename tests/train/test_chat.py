"""The conversation: history, a context that it outgrows, and the terminal around it."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from corpusmill.pipeline.storage import Storage
from corpusmill.train.architecture import Architecture
from corpusmill.train.chat import Conversation, chat_loop
from corpusmill.train.checkpoint import save_model
from corpusmill.train.generate import load_for_generation
from corpusmill.train.model import Llama, initialise
from corpusmill.train.template import load_chat, template_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)  # fmt: skip
    tokenizer.train_from_iterator(["hello"], trainer)
    model = Llama(Architecture(vocab_size=260, layers=1, width=16, heads=2, kv_heads=2, head_dim=8, ffn=16, context=128))
    initialise(model, 0)
    folder = tmp_path_factory.mktemp("chat") / "model"
    save_model(model, folder, {"tokenizer.json": tokenizer.to_str().encode(), **template_files(128)})
    return folder


def conversation(folder: Path) -> Conversation:
    return Conversation(load_for_generation(folder), load_chat(Storage(str(folder))))


def test_turns_join_the_history_and_old_ones_leave_it(folder: Path) -> None:
    talk = conversation(folder)
    talk.messages.append({"role": "system", "content": "Be kind."})
    for turn in range(6):
        answer = "".join(talk.ask(f"hello {turn}", max_tokens=10, seed=1))
        assert talk.messages[-2:] == [{"role": "user", "content": f"hello {turn}"}, {"role": "assistant", "content": answer}]
        assert talk.messages[0]["role"] == "system"
    assert 3 <= len(talk.messages) < 13 and len(talk.messages) % 2 == 1


def test_a_message_that_is_too_long_is_refused_and_forgotten(folder: Path) -> None:
    talk = conversation(folder)
    with pytest.raises(ValueError, match="That message is too long"):
        list(talk.ask("hello " * 200, max_tokens=10))
    assert talk.messages == []
    assert isinstance("".join(talk.ask("hello", max_tokens=5)), str)


def test_an_answer_that_is_cut_off_still_counts(folder: Path) -> None:
    talk = conversation(folder)
    answer = talk.ask("hello", max_tokens=50, seed=3)
    first = next(answer)
    answer.close()
    assert talk.messages[-1] == {"role": "assistant", "content": first}


def test_the_terminal_loop_answers_and_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ends in ([""], [EOFError]):
        script = iter(["hello", "hello " * 200, *ends])

        def read(*_: object, script: object = script) -> str:
            value = next(script)  # type: ignore[call-overload]
            if isinstance(value, str):
                return value
            raise value

        console = Console(file=io.StringIO(), force_terminal=False, width=200)
        monkeypatch.setattr(console, "input", read)
        chat_loop(folder, console, max_tokens=8, seed=1)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "too long" in shown and "\x1b" not in shown
