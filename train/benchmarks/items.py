"""What a benchmark asks: questions with choices whose probabilities are compared, and questions that are answered in free text."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Choices:
    """The `continuations` of `contexts`, one of each for every choice, of which the `gold` one is right.

    With one choice alone the question is whether it is the most likely continuation. `characters` is how long each choice is, by
    which `acc_norm` divides.
    """

    number: int  # in its set, from 0
    group: str  # the part of the set that it belongs to; empty where a set is one
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    characters: tuple[int, ...]
    gold: int

    @property
    def solved(self) -> str:
        """The item with its answer, as an example before others."""
        return self.contexts[self.gold] + self.continuations[self.gold]

    def after(self, examples: str) -> "Choices":
        return replace(self, contexts=tuple(examples + context for context in self.contexts))


@dataclass(frozen=True)
class Question:
    """A `prompt` that the model continues; its text is compared with `answer`."""

    number: int
    group: str
    prompt: str
    answer: str

    @property
    def solved(self) -> str:
        return f"{self.prompt} {self.answer}"

    def after(self, examples: str) -> "Question":
        return replace(self, prompt=examples + self.prompt)


Item = Choices | Question


def one_context(number: int, context: str, choices: list[str], gold: int) -> Choices:
    """Choices that follow one context after a space."""
    continuations = tuple(f" {choice}" for choice in choices)
    return Choices(number, "", (context,) * len(choices), continuations, tuple(map(len, choices)), gold)
