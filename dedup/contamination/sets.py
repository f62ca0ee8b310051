"""Reads evaluation sets: the files that a recipe names, the formats of their rows, and the texts that documents must not hold.

A format is recognised by the keys of its rows, as the sets are published (by Hugging Face, and by the authors where their files differ).
A question with its choices is one text, and the question alone is another, because a page may have either. The question is then the *stem*
of both texts: where it is ordinary quiz language, it proves nothing (`find.py`). Contexts that come from Wikipedia or other public pages
(SQuAD, BoolQ, DROP, SciQ) are not looked for: a page with the context alone is no leak.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import regex

from corpusmill.dedup.config import FieldsConfig, SetConfig
from corpusmill.dedup.contamination.words import word_codes, words_of
from corpusmill.dedup.words import word_hashes
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.formats.evaluation_sets import COMPRESSIONS, ENDINGS, Rows, data_files, read_set
from corpusmill.pipeline.manifest import FileRef
from corpusmill.text.buffers import read_only, text_buffers
from corpusmill.text.damage import storable

Item = dict[str, Any]
#: Pairs `(field, text)`: the field of an item from which a text comes, and the text.
Texts = list[tuple[str, str]]

SPLITS = frozenset(["test", "train", "validation", "valid", "val", "dev", "data", "eval", "none", "default", "main", "plain_text"])
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class SetFile:
    """One file of an evaluation set. `name` is the name of the set in reports."""

    ref: FileRef
    name: str
    config: SetConfig


def set_files(configs: Sequence[SetConfig]) -> list[SetFile]:
    """Returns the files of all sets, each once. Raises InputError if a folder has a file that may hold items and can't be read."""
    found: dict[str, SetConfig] = {}
    for config in configs:
        for path in data_files(config.path, expand(config.path)):
            found.setdefault(path, config)
    names = _names(list(found))
    return [SetFile(file_ref(path), config.name or names[path], config) for path, config in found.items()]


def _parts(path: str) -> tuple[str, ...]:
    """Returns the folders and the name of a file, without endings and shard numbers. The name `data` is left out, because it identifies
    nothing."""
    name = PurePosixPath(path).name
    for ending in (*COMPRESSIONS, *ENDINGS):
        name = name.removesuffix(ending)
    folders, name = PurePosixPath(path).parts[:-1], SHARD.sub("", name)
    return folders if name == "data" and folders else (*folders, name)


def _names(paths: list[str]) -> dict[str, str]:
    """Returns a name for each path: the shortest end of it that no other path shares and that is not only the name of a split, such as
    `ARC-Easy/test`."""
    parts = {path: _parts(path) for path in paths}
    count = dict.fromkeys(parts.values(), 1)
    while True:
        names = {whole: "/".join(whole[-number:]) for whole, number in count.items()}
        same = Counter(names.values())
        longer = [w for w in count if count[w] < len(w) and (same[names[w]] > 1 or SPLITS.issuperset(names[w].lower().split("/")))]
        if not longer:
            return {path: names[whole] for path, whole in parts.items()}
        for whole in longer:
            count[whole] += 1


# ---- texts -----------------------------------------------------------------------------------------------


#: Words of a text that are looked for, at most; of a longer text, only the beginning.
MAX_WORDS = 100_000
NUMBER, WORD = re.compile(r"\d+"), re.compile(r"[^\W_]+")
MARK = regex.compile(r"[^\w\s\p{M}]")
APOSTROPHE = re.compile(r"(?<=\w)['‘’ʼ＇](?=\w)")
#: A text of fewer words may not be found if two of its words are joined or one is split (see `forms`).
SHORT = 30


@dataclass(frozen=True)
class ItemTexts:
    """The n texts of the items of all sets. All arrays have a value for each text."""

    sets: list[str]  # the names of the sets
    fields: list[str]  # the names of the fields
    set_of: npt.NDArray[np.int32]  # the index of its set in `sets`
    number: npt.NDArray[np.int64]  # the number of its item in its set, from 0
    field_of: npt.NDArray[np.int32]  # the index of its field in `fields`
    item: npt.NDArray[np.int64]  # the number of its item among the items of all sets, ascending
    sizes: list[int]  # the number of items of each set
    texts: list[str]
    stems: list[str]  # the question with which the text begins, if the item has choices or answers for it; else empty


def read_items(files: Sequence[SetFile]) -> Iterator[tuple[SetFile, Rows, Callable[[Item], Texts]]]:
    """Yields each table of the sets: its file, its rows, and the function that makes the texts of a row. Raises InputError."""
    for file in files:
        for place, table in read_set(file.ref.path):
            yield file, table, reader(place, table, file.config.fields)


def read_passages(files: Sequence[SetFile]) -> ItemTexts:
    """Reads the texts of all sets into memory. Files with one name are one set, and their items are numbered on."""
    sets, fields, items = dict[str, int](), dict[str, int](), Counter[str]()
    texts: list[str] = []
    stems: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    item = 0
    for file, table, texts_of in read_items(files):
        set_ = sets.setdefault(file.name, len(sets))
        for row in table:
            found = [(field, storable(text)) for field, text in texts_of(row)]
            stem_of = {field: text for field, text in found if any(other.startswith(f"{field}, ") for other, _ in found)}
            for field, text in found:
                stem = stem_of.get(field.partition(", ")[0], "")
                for form in forms(text):
                    texts.append(form(text))
                    stems.append(form(stem))
                    rows.append((set_, items[file.name], fields.setdefault(field, len(fields)), item))
            items[file.name] += 1
            item += 1
    columns = np.array(rows, np.int64).reshape(-1, 4)
    return ItemTexts(
        list(sets), list(fields), columns[:, 0].astype(np.int32), columns[:, 1].copy(), columns[:, 2].astype(np.int32),
        columns[:, 3].copy(), [items[name] for name in sets], texts, stems,
    )  # fmt: skip


Form = Callable[[str], str]
#: Changes of a text: none; without its marks; with spaces for its apostrophes.
FORMS: tuple[Form, ...] = (str, lambda t: MARK.sub("", t), lambda t: MARK.sub("", t).replace("_", ""), lambda t: APOSTROPHE.sub(" ", t))


def forms(text: str) -> list[Form]:
    """Returns the changes that make the variants of a text that are looked for. The first one is none.

    A change is left out unless it changes the number of words, and does so in a short text or by more than a tenth.
    """
    found: dict[str, Form] = {text: str}
    words = _count(text)
    for form in FORMS[1:]:
        changed = abs(_count(form(text)) - words)
        if changed and (words < SHORT or changed > 0.1 * words):
            found.setdefault(form(text), form)
    return list(found.values())


def _count(text: str) -> int:
    """Returns about how many words a text has."""
    return len(WORD.findall(APOSTROPHE.sub("", text)))


def passage_words(texts: Sequence[str], marks: bool = False) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Returns `(words, bounds)` of n texts: the hashes of the words of text i are `words[bounds[i]:bounds[i + 1]]`.

    With `marks`, each mark is a word.
    """
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    data, codes = read_only(data), word_codes(marks)
    scratch = np.empty(int(np.diff(offsets).max(initial=0)) + 1, np.uint64)
    found = [scratch[: min(word_hashes(data, a, b, codes, scratch), MAX_WORDS)].copy() for a, b in pairwise(offsets)]
    bounds = np.concatenate([[0], np.cumsum([len(words) for words in found])]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.uint64), *found]), bounds


def hashes_of(words: Iterable[str], marks: bool = False) -> npt.NDArray[np.uint64]:
    """Returns the hashes of these words, in another order."""
    return words_of(" ".join(sorted(words)).encode(), marks)[0]


# ---- formats ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemFormat:
    """The format in which a set is published: its rows have all of `keys`, and `texts` returns the texts of a row to look for."""

    name: str
    keys: tuple[str, ...]
    texts: Callable[[Item], Texts]

    def fits(self, row: Item) -> bool:
        return row.keys() >= {*self.keys}


def values(value: Any) -> list[str]:
    """Returns all texts in a value, in order: the value itself, or the texts in its lists and objects. Numbers become texts."""
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
    """Returns the value at a path such as `a.b.c`. For a list on the way, returns a list with the value of each of its objects."""
    for key in path.split("."):
        if isinstance(row, list):
            row = [item.get(key) for item in row if isinstance(item, dict)]
        elif isinstance(row, dict):
            row = row.get(key)
        else:
            return None
    return row


def joined(row: Item, *paths: str) -> str:
    return "\n".join(text for path in paths for text in values(value_at(row, path)))


def fields(*paths: str) -> Callable[[Item], Texts]:
    """Returns a function that makes a text of each of these fields."""
    return lambda row: [(path, joined(row, path)) for path in paths]


def choice(question: str, choices: str, *more: str) -> Callable[[Item], Texts]:
    """Returns a function that makes two texts: the question, and the question with its choices; and a text of each field in `more`."""
    return lambda row: [
        (question, joined(row, question)),
        (f"{question}, {choices}", joined(row, question, choices)),
        *((path, joined(row, path)) for path in more),
    ]


def _hellaswag(row: Item) -> Texts:
    """Returns the context, and the context with the right ending, or with all endings where the label is hidden."""
    endings = values(row["endings"])
    label = str(row.get("label", ""))
    right = [endings[int(label)]] if label.isdecimal() and int(label) < len(endings) else endings
    return [("ctx", joined(row, "ctx")), ("ctx, endings", "\n".join([joined(row, "ctx"), *right]))]


def with_each(question: str, *others: str) -> Callable[[Item], Texts]:
    """Returns a function that makes a text of the question with each of the other fields."""
    return lambda row: [(f"{question}, {other}", joined(row, question, other)) for other in others]


def _winogrande(row: Item) -> Texts:
    """Returns the sentence with each of the two words in its gap."""
    return [(f"sentence, {option}", joined(row, "sentence").replace("_", joined(row, option))) for option in ("option1", "option2")]


def _dclm_question(row: Item) -> Texts:
    """Returns the question without its passage, and the question with its choices."""
    question = joined(row, "query").rpartition("Question:")[2].strip()
    return [("query", question), ("query, choices", "\n".join([question, *values(row["choices"])]))]


def _dclm_schema(row: Item) -> Texts:
    return [("context_options, continuation", f"{context} {joined(row, 'continuation')}") for context in values(row["context_options"])]


def _dclm_text(row: Item) -> Texts:
    """Returns the last question, or the text where there is none, with its continuation."""
    return [("context, continuation", f"{joined(row, 'context').rpartition('Question:')[2].strip()} {joined(row, 'continuation')}")]


def _question(row: Item) -> Texts:
    """Returns the texts of a row in AI2's own files, where the question is an object of a stem and choices, or a text."""
    of = choice("question.stem", "question.choices.text") if isinstance(row["question"], dict) else fields("question")
    return of(row)


#: Formats are tried in this order. If a format has all keys of another one and more, it must come first.
FORMATS = (
    ItemFormat("HumanEval", ("prompt", "canonical_solution", "test"), fields("prompt", "canonical_solution", "test")),
    ItemFormat("MBPP", ("text", "code", "test_list"), fields("text", "code", "test_list")),
    ItemFormat("MBPP, sanitized", ("prompt", "code", "test_list"), fields("prompt", "code", "test_list")),
    ItemFormat("BLiMP", ("sentence_good", "sentence_bad"), fields("sentence_good", "sentence_bad")),
    ItemFormat("HellaSwag", ("ctx", "endings"), _hellaswag),
    ItemFormat("PIQA", ("goal", "sol1", "sol2"), lambda row: fields("goal")(row) + with_each("goal", "sol1", "sol2")(row)),
    ItemFormat("WinoGrande", ("sentence", "option1", "option2"), _winogrande),
    ItemFormat("COPA", ("premise", "choice1", "choice2"), with_each("premise", "choice1", "choice2")),
    ItemFormat("Social IQa", ("context", "question", "answerA", "answerB"), with_each("context", "question")),
    ItemFormat("MATH", ("problem", "solution"), fields("problem", "solution")),
    ItemFormat("TruthfulQA, generation", ("question", "best_answer", "correct_answers"), choice("question", "best_answer")),
    ItemFormat("TruthfulQA, multiple choice", ("question", "mc1_targets"), choice("question", "mc1_targets.choices")),
    ItemFormat("SciQ", ("question", "distractor1", "correct_answer"), fields("question")),
    ItemFormat("OpenBookQA", ("question_stem", "choices"), choice("question_stem", "choices.text")),
    ItemFormat("MMLU-Pro", ("question", "options", "answer"), choice("question", "options")),
    ItemFormat("ARC, CommonsenseQA", ("question", "choices", "answerKey"), choice("question", "choices.text")),
    ItemFormat("MMLU", ("question", "choices"), choice("question", "choices")),
    ItemFormat("ARC, AI2's files", ("question", "answerKey"), _question),
    ItemFormat("TruthfulQA, CSV", ("Question", "Best Answer"), choice("Question", "Best Answer")),
    ItemFormat("GPQA", ("Question", "Correct Answer"), choice("Question", "Correct Answer")),
    ItemFormat("SQuAD", ("question", "context", "answers"), fields("question")),
    ItemFormat("BoolQ, DROP", ("question", "passage"), fields("question")),
    ItemFormat("TriviaQA", ("question", "question_id"), fields("question")),
    ItemFormat("GSM8K", ("question", "answer"), fields("question", "answer")),
    ItemFormat("BIG-Bench Hard", ("input", "target"), fields("input")),
    ItemFormat("DCLM, multiple choice", ("query", "choices", "gold"), _dclm_question),
    ItemFormat("DCLM, schema", ("context_options", "continuation"), _dclm_schema),
    ItemFormat("DCLM, language modelling", ("context", "continuation"), _dclm_text),
    ItemFormat("LAMBADA", ("text",), fields("text")),
)


def given_fields(names: FieldsConfig) -> Callable[[Item], Texts]:
    """Returns a function that makes the texts of a row from the fields that a recipe names."""

    def texts(row: Item) -> Texts:
        found = [(path, joined(row, path)) for path in (names.question, names.context, names.answer) if path]
        if names.choices:
            paths = [path for path in (names.question, names.choices) if path]
            found.append((", ".join(paths), joined(row, *paths)))
        return found

    return texts


def reader(place: str, rows: Iterable[Item], names: FieldsConfig | None) -> Callable[[Item], Texts]:
    """Returns the function that makes the texts of the rows of a table. Raises InputError if the format is unknown.

    `place`: the name of the table for messages. `names`: the fields that the recipe gives, if any.
    """
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
