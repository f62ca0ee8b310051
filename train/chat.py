"""A conversation with a tuned model in the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpusmill.pipeline.storage import Storage
from corpusmill.train.generate import Speaker, generate, load_for_generation, stream_text
from corpusmill.train.template import ChatEncoder, load_chat


@dataclass
class Conversation:
    """The turns so far. What no longer fits into the context is forgotten from the front, a system message excepted."""

    speaker: Speaker
    encoder: ChatEncoder
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, text: str, *, max_tokens: int, seed: int = 0, **sampling: Any) -> Iterator[str]:
        """The answer piece by piece; it joins the history when it ends, also where the reader stops early.

        Raises ValueError with a sentence where the message alone is longer than the context allows.
        """
        ids = self._prompt({"role": "user", "content": text}, max_tokens)
        tokens = generate(self.speaker.model, ids, max_tokens=max_tokens, seed=seed + len(self.messages), stop=self.speaker.stop,
                          banned=self.speaker.banned, **sampling)  # fmt: skip
        self.messages.append({"role": "user", "content": text})
        answer: list[str] = []
        try:
            for piece in stream_text(self.speaker.tokenizer, tokens):
                answer.append(piece)
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": "".join(answer)})

    def _prompt(self, message: dict[str, str], max_tokens: int) -> Sequence[int]:
        """The ids of as much history as leaves room for an answer (at most half of the context)."""
        context = self.speaker.model.arch.context
        room = context - min(max_tokens, context // 2)
        system = [m for m in self.messages[:1] if m["role"] == "system"]
        turns = self.messages[len(system) :]
        while True:
            ids: list[int] = self.encoder.encode([*system, *turns, message], add_generation_prompt=True).ids.tolist()
            if len(ids) <= room:
                self.messages = [*system, *turns]
                return ids
            if not turns:
                raise ValueError(f"That message is too long: {len(ids)} tokens, and this model can take {room}.")
            turns = turns[2:]


def chat_loop(
    model_folder: str | Path,
    console: Any,
    *,
    temperature: float = 0.7,
    top_k: int = 50,
    top_p: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    system: str | None = None,
    device: str = "auto",
) -> None:
    """Reads messages from the terminal and prints answers, until an empty line, Ctrl-D, or Ctrl-C at the prompt."""
    conversation = Conversation(load_for_generation(model_folder, device), load_chat(Storage(str(model_folder))))
    if system:
        conversation.messages.append({"role": "system", "content": system})
    console.print("An empty line ends the conversation.", style="dim")
    while True:
        try:
            text = console.input("[bold]you>[/bold] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not text:
            return
        try:
            for piece in conversation.ask(text, max_tokens=max_tokens, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p):
                console.out(piece, end="", highlight=False)
        except ValueError as error:
            console.print(str(error), style="yellow", markup=False, end="")
        except KeyboardInterrupt:
            console.print(" (stopped)", style="dim", end="")
        console.print()
