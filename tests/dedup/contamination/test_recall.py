"""Tests which items are found: every complete one, most of the edited ones, and nothing else."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.config import ContaminationConfig
from corpusmill.dedup.contamination.find import PASSAGE, Finder, build_index
from corpusmill.dedup.contamination.sets import read_passages, set_files

#: Words that no two languages share, so that nothing is found by chance.
NOUNS = [a + b + c for a in ("bal", "dor", "fen", "kim", "lus", "mor") for b in ("ta", "ri", "no", "ve") for c in ("n", "sk", "p", "x")]
BRACKETS = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: "
QUESTION = ["which", "of", "these", "towns", "has", "the", "most", "people", "today", "and", "why", "is", "that"]


def finder_of(tmp_path: Path, items: list[str]) -> Finder:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
    return finder_at(path)


def finder_at(path: Path) -> Finder:
    config = ContaminationConfig(sets=[str(path)])
    return Finder.make(build_index(read_passages(set_files(config.set_configs())), config), config)


def found(finder: Finder, *documents: str) -> list[set[int]]:
    """Returns the items found in each document."""
    result: list[set[int]] = [set() for _ in documents]
    for row in finder.find(pa.array(documents, pa.large_string())):
        result[row[0]].add(int(finder.index.number[row[PASSAGE]]))
    return result


def share_found(finder: Finder, items: list[str], edit: Callable[[str], str]) -> float:
    documents = [f"{prose(n, 40)} {edit(item)} {prose(n + 1, 40)}" for n, item in enumerate(items)]
    return sum(n in items_found for n, items_found in enumerate(found(finder, *documents))) / len(items)


def prose(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(NOUNS, k=count))


def one_word_in_ten(text: str) -> str:
    draw = random.Random(text)
    places = [match.span() for match in re.finditer(r"\w+", text)]
    for start, end in sorted(draw.sample(places, -(-len(places) // 10)), reverse=True):
        text = text[:start] + draw.choice(NOUNS) + text[end:]
    return text


def questions(count: int, words: int) -> list[str]:
    """Makes questions of a given number of words, with few different beginnings and different ends, as real ones have."""
    draw = random.Random(words)
    common = min(words // 2, 10)
    starts = [" ".join(draw.sample(QUESTION, common)) for _ in range(5)]
    return [f"{draw.choice(starts)} {' '.join(draw.choices(NOUNS, k=words - common))}?" for _ in range(count)]


def test_questions_of_every_length_are_found_whole_and_most_of_the_edited_ones(tmp_path: Path) -> None:
    for words in (8, 13, 20, 40):
        items = questions(150, words)
        finder = finder_of(tmp_path, items)
        assert share_found(finder, items, lambda item: item) == 1
        assert share_found(finder, items, lambda item: re.sub(r"\W+", "\n", item.upper())) == 1
        assert words < 13 or share_found(finder, items, one_word_in_ten) >= 0.95, words


def test_items_with_a_long_instruction_are_found_and_the_instruction_alone_is_not(tmp_path: Path) -> None:
    instruction = "Answer with one of the given names and with nothing else, and do not say why you have chosen it: "
    items = [instruction + question for question in questions(200, 16)]
    finder = finder_of(tmp_path, items)
    assert share_found(finder, items, lambda item: item) == 1
    assert share_found(finder, items, one_word_in_ten) >= 0.95
    assert found(finder, f"{prose(1, 40)} {instruction} {prose(2, 40)}") == [set()]


def test_a_text_all_of_whose_parts_are_common_is_found_whole(tmp_path: Path) -> None:
    """Four names in a frame: every n-gram occurs in more than 20 items, and only the whole text belongs to one item."""
    names = [f"{noun} the {other}" for noun, other in zip(NOUNS[:6], NOUNS[6:12], strict=True)]
    items = [f"first comes {a} then comes {b} then comes {c}" for a in names for b in names for c in names]
    finder = finder_of(tmp_path, items)
    assert share_found(finder, items, lambda item: item) == 1
    assert found(finder, f"{prose(1, 40)} first comes {names[0]} then comes a stranger {prose(2, 40)}") == [set()]


def dyck(draw: random.Random) -> str:
    return " ".join(draw.choices("()[]{}<>", k=draw.randint(10, 30)))


def test_items_of_marks_are_found_by_their_marks(tmp_path: Path) -> None:
    draw = random.Random(1)
    items = [BRACKETS + dyck(draw) for _ in range(100)] + [dyck(draw) for _ in range(100)]
    finder = finder_of(tmp_path, items)
    assert share_found(finder, items, lambda item: item) == 1
    assert share_found(finder, items, lambda item: re.sub(r"(?<=\W) (?=\W)", "", item.upper())) == 1
    assert share_found(finder, items[:100], one_word_in_ten) == 1
    other = dyck(random.Random(2))
    assert found(finder, f"{prose(1, 40)} {BRACKETS} {prose(2, 40)}", f"{prose(3, 40)} {other} {prose(4, 40)}") == [set(), set()]


def test_lines_of_equal_marks_and_of_tables_are_no_items(tmp_path: Path) -> None:
    items = ["-" * 40, "| --- | --- | --- | --- |", "{}{}{}{}{}{}", "((((((((((((((", "Hello, world! How are you?"]
    assert found(finder_of(tmp_path, items), *items) == [set()] * 5


def test_a_text_that_many_items_have_is_boilerplate(tmp_path: Path) -> None:
    boilerplate = "Which of the following statements about the text above is not true?"
    few = "Which of the statements about the picture below would you call true?"
    finder = finder_of(tmp_path, [boilerplate] * 21 + [few] * 20)
    assert found(finder, f"{prose(1, 40)} {boilerplate} {prose(2, 40)}", f"{prose(1, 40)} {few} {prose(2, 40)}") == [set(), {21}]


def test_a_stem_that_any_quiz_may_have_counts_only_with_its_options(tmp_path: Path) -> None:
    draw = random.Random(7)
    ordinary = [
        "Which of the following statements is true?",
        "All of the following are examples of this process EXCEPT",
        "According to the author, what is the main idea of the second paragraph?",
        "Choose the answer that best completes the sentence below.",
        "Which of these best explains the results shown in the table?",
        "Welche der folgenden Aussagen über den Text ist richtig?",
        "Laquelle des affirmations suivantes est la plus exacte ?",
    ]
    telling = ["Which river flows through the town where Haydn was born?", "How do you get the smell of smoke out of curtains?"]
    rows = [{"question": stem, "choices": [" ".join(draw.choices(NOUNS, k=3)) for _ in range(4)]} for stem in ordinary + telling]
    goals = [{"goal": stem, "sol1": prose(n, 9), "sol2": prose(n + 50, 9)} for n, stem in enumerate(ordinary + telling)]
    for name, found_in in (("choices", rows), ("goals", goals)):
        (tmp_path / f"{name}.json").write_text(json.dumps(found_in))
        finder = finder_at(tmp_path / f"{name}.json")
        alone = found(finder, *(f"{prose(n, 40)} {stem} {prose(n + 1, 40)}" for n, stem in enumerate(ordinary + telling)))
        assert alone == [set()] * len(ordinary) + [{len(ordinary)}, {len(ordinary) + 1}]
        answered = [" ".join([row.get("question") or row["goal"], *(row.get("choices") or [row["sol1"]])]) for row in found_in]
        assert found(finder, *(f"{prose(n, 40)} {text.lower()} {prose(n + 1, 40)}" for n, text in enumerate(answered))) == [
            {n} for n in range(len(rows))
        ]


def test_words_that_most_stems_of_a_set_have_tell_nothing(tmp_path: Path) -> None:
    """A made language: four words in every stem, three others in each."""
    frame = "korta belisk ludan marnop"
    stems = [f"{frame} {frame}", *(f"{frame} {prose(n, 3)}" for n in range(60))]
    (tmp_path / "set.json").write_text(json.dumps([{"question": stem, "choices": [prose(n, 2)]} for n, stem in enumerate(stems)]))
    finder = finder_at(tmp_path / "set.json")
    assert found(finder, f"{prose(91, 40)} {stems[0]} {prose(92, 40)}", f"{prose(93, 40)} {stems[1]} {prose(94, 40)}") == [set(), {1}]


def test_of_eight_words_one_between_the_others_may_differ(tmp_path: Path) -> None:
    item = "who led the army of carthage in battle"
    finder = finder_of(tmp_path, [item])
    documents = [" ".join([prose(n, 30), *(other if k == n else word for k, word in enumerate(item.split())), prose(n + 9, 30)])
                 for n in range(8) for other in ["balsk"]]  # fmt: skip
    assert found(finder, *documents) == [set(), *[{0}] * 6, set()]


def test_numbers_may_change_and_words_may_be_inserted(tmp_path: Path) -> None:
    items = [f"{prose(n, 9)}. {n + 10} {prose(n + 100, 8)} {n + 20}, {prose(n + 200, 9)}." for n in range(50)]
    finder = finder_of(tmp_path, items)
    assert share_found(finder, items, lambda item: re.sub(r"\d", "7", item)) == 1
    assert share_found(finder, items, lambda item: item.replace(". ", f".\n{prose(901, 12)}\n").replace(", ", f"\n{prose(902, 12)}\n")) == 1
    assert share_found(finder, items, lambda item: item.replace(". ", f". {prose(901, 60)} ").replace(", ", f" {prose(902, 60)} ")) == 0


def test_words_of_many_short_stretches_are_not_an_item(tmp_path: Path) -> None:
    item = (
        "Which African country is bordered to the east by Chad, to the south by Nigeria and Benin, to west by Mali, and to the north by "
        "Algeria and Libya?"
    )
    page = (
        "The country is bordered to the northeast by Tunisia; to the east by Libya; to the southeast by Niger; to the southwest by Mali, "
        "Mauritania, and Western Sahara; to the west by Morocco; and to the north by the Mediterranean Sea."
    )
    assert found(finder_of(tmp_path, [item]), page, f"{prose(1, 40)} {item} {prose(2, 40)}") == [set(), {0}]


WORDS = st.sampled_from(
    ["the", "of", "is", "a", "1", "22", "été", "Straße", "don't", "ﬁne", "東", "京", "ไ", "ท", "слово", "ΟΔΟΣ", "naïve", "x"]
)
ITEM = st.lists(WORDS, min_size=8, max_size=30)
BETWEEN = st.sampled_from([" ", "\n", "  ", ", ", " - ", "\n\n* ", "_ _", '" (', "\u00a0", " … "])
CASE = st.sampled_from([str, str.upper, str.lower, str.title])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(ITEM, min_size=1, max_size=30), st.lists(WORDS, max_size=30), st.lists(WORDS, max_size=30))
def test_what_stands_whole_is_found(tmp_path_factory, data, items, before, after) -> None:  # type: ignore[no-untyped-def]
    finder = finder_of(tmp_path_factory.mktemp("whole"), [" ".join(item) for item in items])
    item = data.draw(st.sampled_from(items))
    change = data.draw(CASE)
    text = " ".join([*before, ""]) + "".join(change(word) + data.draw(BETWEEN) for word in item) + " ".join(after)
    same = {n for n, other in enumerate(items) if other == item}
    assert not same.isdisjoint(found(finder, text)[0])
