"""Tests the conversation: its turns, a context that it outgrows, commands, and pipes."""

import io
import json
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from speaking import speaking_folder

from corpusmill.cli.chat import Conversation, Screen, chat_loop, chat_warning
from corpusmill.pipeline.errors import InputError
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.generate import Sampling, load_text_generator
from corpusmill.train.sft import read_examples
from corpusmill.train.template import template_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_folder(tmp_path_factory.mktemp("chat") / "model")


def talk_with(folder: Path, **options: object) -> Conversation:
    return Conversation(load_text_generator(folder, "cpu"), Sampling(seed=1), **{"max_tokens": 10, **options})


def shown_to_the_model(talk: Conversation) -> list[str]:
    """Returns the prompts that the model gets, as text with special tokens."""
    prompts: list[str] = []

    def note(_: object, given: tuple[torch.Tensor, ...]) -> None:
        if given[0].size(1) > 1:
            prompts.append(talk.generator.tokenizer.decode(given[0][0].tolist(), skip_special_tokens=False))

    talk.generator.model.model.register_forward_pre_hook(note)
    return prompts


def test_turns_join_the_history_and_the_oldest_are_no_longer_shown(folder: Path) -> None:
    talk = talk_with(folder, system="Be kind.")
    prompts, asked = shown_to_the_model(talk), []
    for number in range(6):
        answer = "".join(talk.ask(f"hello {number}")).strip()
        asked += [("user", f"hello {number}"), ("assistant", answer)]
        shown = prompts[-1].split("<|im_start|>")[1:]
        assert shown[0] == "system\nBe kind.<|im_end|>\n" and shown[-1] == "assistant\n"
        assert len(shown) == 2 + len(talk.turns) - 1 - talk.forgotten
    assert [(turn["role"], turn["content"]) for turn in talk.turns] == asked and talk.forgotten > 0 and talk.forgotten % 2 == 0
    talk.new()
    assert talk.turns == [] and talk.forgotten == 0 and talk.system


def test_another_answer_and_stopping(folder: Path) -> None:
    talk = talk_with(folder)
    with pytest.raises(InputError, match="no answer yet"):
        talk.again()
    first, second = "".join(talk.ask("hello")), "".join(talk.again())
    assert first != second and [turn["content"] for turn in talk.turns] == ["hello", second.strip()]
    pieces = talk.ask("the cat")
    part = next(piece for piece in pieces if piece.strip())
    pieces.close()
    assert talk.turns[2]["content"] == "the cat" and talk.turns[3]["content"].endswith(part.strip())


def test_a_message_that_is_too_long_is_refused_and_an_answer_ends_with_the_context(folder: Path) -> None:
    talk = talk_with(folder)
    with pytest.raises(InputError, match=r"^that message is too long: \d+ tokens, and this model can take 118\.$"):
        talk.ask("hello " * 200)
    talk.max_tokens, talk.generator = 10_000, replace(talk.generator, stop=frozenset())
    "".join(talk.ask("hello"))
    assert talk.ended == "cut" and len(talk.turns) == 2
    with pytest.raises(InputError, match="half|not Unicode"):
        talk.ask("\udc80")
    assert len(talk.turns) == 2


def test_what_is_saved_is_what_instruction_tuning_reads(folder: Path, tmp_path: Path) -> None:
    talk, path = talk_with(folder, system="Be kind."), tmp_path / "kept.jsonl"
    with pytest.raises(InputError, match="nothing to save"):
        talk.save(path)
    "".join(talk.ask("hello\x1b"))
    talk.save(path)
    talk.new()
    "".join(talk.ask("the cat"))
    talk.save(path)
    first, second = read_examples([str(path)], 0.0)
    assert [m["role"] for m in first.messages] == ["system", "user", "assistant"] and first.messages[1]["content"] == "hello\x1b"
    assert second.messages[1:] == talk.turns and "\x1b" not in path.read_text()
    with pytest.raises(InputError, match=r"x\.txt: conversations are saved as lines of JSON"):
        talk.save(tmp_path / "x.txt")
    with pytest.raises(InputError, match=r"no/x\.jsonl: can't be written"):
        talk.save(tmp_path / "no" / "x.jsonl")


def test_models_that_may_not_be_able_to_talk_are_named(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    tokenizer = {"tokenizer.json": (folder / "tokenizer.json").read_bytes()}
    assert chat_warning(folder) is None
    save_model(model, tmp_path / "bare", tokenizer)
    assert "has no chat template: ChatML is used" in str(chat_warning(tmp_path / "bare"))
    save_model(model, tmp_path / "raw", {**tokenizer, **template_files(128, end_token="<|endoftext|>")})
    assert "was not tuned on conversations" in str(chat_warning(tmp_path / "raw"))
    (tmp_path / "bare" / "chat_template.jinja").write_text("{% for")
    with pytest.raises(InputError, match=r"chat_template\.jinja:1: not a valid chat template"):
        talk_with(tmp_path / "bare")


def piped(monkeypatch: pytest.MonkeyPatch, talk: Conversation, lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode()), encoding="utf-8"))
    chat_loop(talk, Screen(interactive=False))


def test_pipes_get_answers_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "a.jsonl"
    commands = f"/help\n\nhello\n/again\n/system Be kind.\n/new\nthe cat\n/save {saved}\n/quit\nmore\n"
    talk = talk_with(folder)
    piped(monkeypatch, talk, commands)
    out, err = capsys.readouterr()
    twin = Conversation(talk.generator, Sampling(seed=1), 10)
    answers = ["".join(twin.ask("hello")), "".join(twin.again())]
    twin.new()
    twin.system = "Be kind."
    answers.append("".join(twin.ask("the cat")))
    listed, _, said = out.partition("as Ctrl-D does\n")
    assert said == "".join(f"{answer}\n" for answer in answers) and "\x1b" not in err
    assert "/save FILE" in listed and "/save" not in err
    assert json.loads(saved.read_text())["messages"] == [{"role": "system", "content": "Be kind."}, *twin.turns]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/save x", "x: conversations are saved as lines of JSON"),
    ],
)
def test_what_is_wrong_in_a_pipe_is_one_sentence_with_its_line(folder: Path, monkeypatch, line: str, sentence: str) -> None:
    with pytest.raises(InputError, match="standard input, line 2: ") as error:
        piped(monkeypatch, talk_with(folder), f"\n{line}\nhello\n")
    assert sentence in str(error.value)


class Terminal:
    """Runs the command in a pseudo-terminal, as for a user at a keyboard."""

    def __init__(self, *arguments: object):
        environment = {**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.shown = ""
        self.process, self.master = pty.fork()  # its own terminal, whose Ctrl-C reaches it
        if not self.process:
            os.execve(sys.executable, [sys.executable, "-m", "corpusmill", *map(str, arguments)], environment)

    def until(self, *texts: str) -> str:
        """Returns all output since the last call, once `texts` are in it, in this order."""
        deadline, pattern = time.monotonic() + 120, re.compile(".*?".join(map(re.escape, texts)), re.DOTALL)
        while not pattern.search(self.shown):
            assert select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self.master, 4096).decode(errors="replace")
        shown, self.shown = self.shown, ""
        return shown

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def exit_code(self) -> int:
        deadline = time.monotonic() + 120
        while not (ended := os.waitpid(self.process, os.WNOHANG))[0]:
            assert time.monotonic() < deadline, "the session has not ended"
            time.sleep(0.05)
        return os.waitstatus_to_exitcode(ended[1])


@pytest.fixture
def terminal(folder: Path) -> Iterator[Terminal]:
    terminal = Terminal("chat", folder, "--max-tokens", 100, "--top-k", 0)
    yield terminal
    with suppress(ProcessLookupError):
        os.kill(terminal.process, signal.SIGKILL)
    os.close(terminal.master)


def test_in_a_terminal_lines_are_edited_answers_stopped_and_the_session_stays(terminal: Terminal) -> None:
    assert "/help lists commands" in terminal.until("you>")
    terminal.type("/agaix\x7fn\r")  # a backspace
    assert "no answer yet" in terminal.until("you>")
    terminal.type("\x1b[A\r")  # the line before, from the history
    assert "no answer yet" in terminal.until("you>")
    terminal.type("half a line")
    terminal.until("a line")
    terminal.type("\x03")
    terminal.type("\r/again\r")  # Python sees a Ctrl-C between two keys at the next line's end
    terminal.until("no answer yet", "you>")  # keys that come before the prompt meet the terminal's own line, in which Ctrl-D is lost
    terminal.type("hello\r")
    terminal.until("hello\r\n", "you>")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_ends_an_answer_and_not_the_session(folder: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    talk, screen = talk_with(folder, max_tokens=100), Screen(interactive=True)

    def interrupted() -> Generator[str, None, None]:
        for number, piece in enumerate(talk.ask("hello")):
            yield piece
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)

    screen.show(talk, interrupted)
    assert "(stopped)" in capsys.readouterr().out
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"]
