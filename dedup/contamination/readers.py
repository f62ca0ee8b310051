"""From a row of an evaluation set to the texts that training documents must not hold.

Formats are told by their keys, as the sets are published (Hugging Face's copies, and the authors' own files where they differ).
A question with its choices is one text, and the question alone is another, because a page may have either. Contexts that come
from Wikipedia or other public pages (SQuAD, BoolQ, DROP, SciQ) are not looked for: the page itself is no leak, the question is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corpusmill.dedup.contamination.config import FieldsConfig
from corpusmill.pipeline.errors import InputError

Row = dict[str, Any]
#: `(field, text)`: where in an item a text comes from, and the text.
Texts = list[tuple[str, str]]


@dataclass(frozen=True)
class Format:
    """The published form of a set: its rows have all of `keys`, and `texts` gives what to look for."""

    name: str
    keys: frozenset[str]
    texts: Callable[[Row], Texts]

    def fits(self, row: Row) -> bool:
        return self.keys <= row.keys()


def values(value: Any) -> list[str]:
    """All texts in a value: itself, or those in its lists and objects, in their order. Numbers are texts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [str(value)]
    if isinstance(value, dict):
        return [text for item in value.values() for text in values(item)]
    return [text for item in value for text in values(item)] if isinstance(value, list | tuple) else []


def value_at(row: Any, path: str) -> Any:
    """The value at `a.b.c`; of a list, that of each of its objects."""
    for key in path.split("."):
        if isinstance(row, list):
            row = [item.get(key) for item in row if isinstance(item, dict)]
        elif isinstance(row, dict):
            row = row.get(key)
        else:
            return None
    return row


def joined(row: Row, *paths: str) -> str:
    return "\n".join(text for path in paths for text in values(value_at(row, path)))


def fields(*paths: str) -> Callable[[Row], Texts]:
    """Each of these fields is a text of its own."""
    return lambda row: [(path, joined(row, path)) for path in paths]


def choice(question: str, choices: str, *more: str) -> Callable[[Row], Texts]:
    """A question, and the question with its choices; `more` are fields whose texts stand alone."""
    return lambda row: [
        (question, joined(row, question)),
        (f"{question}, {choices}", joined(row, question, choices)),
        *((path, joined(row, path)) for path in more),
    ]


def _hellaswag(row: Row) -> Texts:
    """The context, and the context with the right ending; with all of them where the label is hidden."""
    endings = values(row["endings"])
    label = str(row.get("label", ""))
    right = [endings[int(label)]] if label.isdecimal() and int(label) < len(endings) else endings
    return [("ctx", joined(row, "ctx")), ("ctx, endings", "\n".join([joined(row, "ctx"), *right]))]


def _piqa(row: Row) -> Texts:
    return [("goal, sol1", joined(row, "goal", "sol1")), ("goal, sol2", joined(row, "goal", "sol2"))]


def _winogrande(row: Row) -> Texts:
    """The sentence with each of the two words in its gap."""
    return [(f"sentence, {option}", joined(row, "sentence").replace("_", joined(row, option))) for option in ("option1", "option2")]


def _social_iqa(row: Row) -> Texts:
    return [("context, question", joined(row, "context", "question"))]


def _copa(row: Row) -> Texts:
    """The premise with each of the two causes or effects."""
    return [(f"premise, {option}", joined(row, "premise", option)) for option in ("choice1", "choice2")]


def _ai2(row: Row) -> Texts:
    """AI2's own files: the question is an object of a stem and choices."""
    return choice("question.stem", "question.choices.text")(row)


def _question(row: Row) -> Texts:
    return _ai2(row) if isinstance(row["question"], dict) else fields("question")(row)


def _format(name: str, keys: Sequence[str], texts: Callable[[Row], Texts]) -> Format:
    return Format(name, frozenset(keys), texts)


#: Tried in this order, so a format stands before those whose keys are among its own.
FORMATS = (
    _format("HumanEval", ("prompt", "canonical_solution", "test"), fields("prompt", "canonical_solution", "test")),
    _format("MBPP", ("text", "code", "test_list"), fields("text", "code", "test_list")),
    _format("MBPP, sanitized", ("prompt", "code", "test_list"), fields("prompt", "code", "test_list")),
    _format("BLiMP", ("sentence_good", "sentence_bad"), fields("sentence_good", "sentence_bad")),
    _format("HellaSwag", ("ctx", "endings"), _hellaswag),
    _format("PIQA", ("goal", "sol1", "sol2"), _piqa),
    _format("WinoGrande", ("sentence", "option1", "option2"), _winogrande),
    _format("COPA", ("premise", "choice1", "choice2"), _copa),
    _format("Social IQa", ("context", "question", "answerA", "answerB"), _social_iqa),
    _format("MATH", ("problem", "solution"), fields("problem", "solution")),
    _format("TruthfulQA, generation", ("question", "best_answer", "correct_answers"), choice("question", "best_answer")),
    _format("TruthfulQA, multiple choice", ("question", "mc1_targets"), choice("question", "mc1_targets.choices")),
    _format("SciQ", ("question", "distractor1", "correct_answer"), fields("question")),
    _format("OpenBookQA", ("question_stem", "choices"), choice("question_stem", "choices.text")),
    _format("MMLU-Pro", ("question", "options", "answer"), choice("question", "options")),
    _format("ARC, CommonsenseQA", ("question", "choices", "answerKey"), choice("question", "choices.text")),
    _format("MMLU", ("question", "choices", "answer"), choice("question", "choices")),
    _format("ARC, AI2's files", ("question", "answerKey"), _question),
    _format("GPQA", ("Question", "Correct Answer"), choice("Question", "Correct Answer")),
    _format("SQuAD", ("question", "context", "answers"), fields("question")),
    _format("BoolQ, DROP", ("question", "passage"), fields("question")),
    _format("TriviaQA", ("question", "question_id"), fields("question")),
    _format("GSM8K", ("question", "answer"), fields("question", "answer")),
    _format("BIG-Bench Hard", ("input", "target"), fields("input")),
    _format("LAMBADA", ("text",), fields("text")),
)


def given_fields(names: FieldsConfig) -> Callable[[Row], Texts]:
    """The texts of a row in fields that a recipe names."""

    def texts(row: Row) -> Texts:
        found = [(path, joined(row, path)) for path in (names.question, names.context, names.answer) if path]
        if names.choices:
            paths = [path for path in (names.question, names.choices) if path]
            found.append((", ".join(paths), joined(row, *paths)))
        return found

    return texts


def reader(place: str, rows: Iterable[Row], names: FieldsConfig | None) -> Callable[[Row], Texts]:
    """What gives the texts of the rows of a table. Raises InputError where nothing does."""
    keys = {key for row in rows for key in row}
    if names:
        missing = [path for path in vars(names).values() if path and path.split(".")[0] not in keys]
        if missing:
            raise InputError(f"{place}: no item has a field {missing[0]!r} (dedup.contamination.sets); they have {_listed(keys)}.")
        return given_fields(names)
    for known in FORMATS:
        if rows and all(known.fits(row) for row in rows):
            return known.texts
    raise InputError(
        f"{place}: no known format of an evaluation set (its items have {_listed(keys)}); name the fields to match in "
        "dedup.contamination.sets."
    )


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "no fields"
