"""Compares verdicts with datatrove's C4BadWordsFilter on the same lists, and counts with its regular expression at every character."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters as reference
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.bad_words import BadWords, BadWordsConfig, draw, list_files, read_words
from corpusmill.filters.rules import StepRule, decide
from corpusmill.filters.step import DocumentBatch
from corpusmill.pipeline.errors import InputError

WORDS = {
    "en": "damn\nbad word\nbad word list\nass\n@$$\n🖕\nk\nNever\n\n", "tr": "çirkin\nıi\ni\u0307yi\n", "el": "κακός\nκακόσ\n",
    "ja": "悪い\n女の子\nsm\n悪", "zh": "性\n坏\n坏CS\n",
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lists")
    for name, words in WORDS.items():
        (made / name).write_text(words, "utf-8")
    (made / "README.md").write_text("not a list")
    return made


def measure(texts: list[str], languages: list[str | None] | None = None, **options: object) -> tuple[dict[str, list], list[list[str]]]:
    """Returns the step's counts in documents, and the rules that they fail."""
    step = BadWords(BadWordsConfig.model_validate(options))
    step.setup()
    columns = {"id": [f"id {place}" for place in range(len(texts))]} | ({"language": languages} if languages else {})
    measured = step.measure(DocumentBatch(pa.table(columns), pa.array(texts, pa.large_string()), "words"))
    values = {name: pa.array(measured.columns[name], kind) for name, kind in step.columns.items()}
    failed = decide([StepRule("bad_words", rule) for rule in step.rules], values, len(texts)).to_pylist()
    return {name: column.to_pylist() for name, column in values.items()}, failed


@pytest.fixture(scope="session")
def datatrove_filter() -> Callable[[Path], reference.C4BadWordsFilter]:
    """Returns datatrove's filter with lists from a folder in place of its downloads (blank lines left out)."""

    def make(lists: Path) -> reference.C4BadWordsFilter:
        made = reference.C4BadWordsFilter(fail_on_missing_language=False)
        for path in lists.iterdir():
            words = {line.strip() for line in path.read_text("utf-8").split("\n")} - {""}
            for allowed in reference._BADWORDS_ALLOWLIST.values():
                words -= allowed
            both = "|".join(map(re.escape, sorted(words)))
            unseparated = path.name in ("ja", "th", "zh")
            made._badwords_regex[path.name] = re.compile(both if unseparated else rf"(?:\W|^)({both})(?:\W|$)")
        return made

    return make


def slow_count(text: str, pattern: re.Pattern[str]) -> int:
    """Counts the characters of the lower-cased text at which datatrove's expression finds a word."""
    bare = pattern.pattern.removeprefix(r"(?:\W|^)").removesuffix(r"(?:\W|$)")
    separate = bare != pattern.pattern
    return len(re.findall(rf"(?<!\w)(?={bare}(?!\w))" if separate else f"(?={bare})", text.lower()))


def assert_equal(texts: list[str], languages: list[str], lists: Path, oracle: reference.C4BadWordsFilter) -> list[int]:
    values, failed = measure(texts, languages, lists=str(lists))
    for text, language, count, failures in zip(texts, languages, values["bad_words"], failed):
        expected = oracle.filter(Document(text=text, id="", metadata={"language": language}))
        assert bool(failures) == (expected is not True), (language, text[:200])
        assert count == slow_count(text, oracle._badwords_regex[language]), (language, text[:200])
    return values["bad_words"]


def test_real_texts_with_the_real_lists(shared_data: Path, texts: list[str], datatrove_filter: Callable) -> None:
    lists = shared_data / "toxicity" / "ldnoobw"
    if not lists.is_dir():
        pytest.skip(f"the lists are not there ({lists})")
    oracle = datatrove_filter(lists)
    names = sorted(list_files(str(lists), None))
    assert names == sorted(reference._BADWORDS_LANGS)
    for name in names:
        own = sorted((lists / name).read_text("utf-8").split("\n"))
        chosen = texts[:: 2 if name in ("en", "ja", "th", "zh") else 20] + [f"x {word.upper()}, y{word} {word}z" for word in own] + own
        counts = assert_equal(chosen, [name] * len(chosen), lists, oracle)
        assert any(counts) or name == "tlh", name  # all Klingon words have capitals


PIECES = st.sampled_from(["damn", "Bad Word", " list", "aſs", "ASS", "@$$", "🖕", "\u212a", "K", "never", "Never", " ", "_", ".", "\n",
                          "ÇİRKİN", "Ii", "ıi", "İyi", "ΚΑΚΌΣ", "ΚΑΚΌΣ ", "κακός", "悪い", "悪", "女の子", "SM",
                          "çirkin", "性", "坏", "坏cs", "1", "é"])  # fmt: skip


@given(st.lists(st.tuples(st.lists(PIECES | st.text(max_size=2), max_size=12).map("".join), st.sampled_from(sorted(WORDS))), min_size=1))
def test_any_text(folder: Path, datatrove_filter: Callable, documents: list[tuple[str, str]]) -> None:
    texts, languages = map(list, zip(*documents))
    assert_equal(texts, languages, folder, datatrove_filter(folder))


def slow_paper_count(text: str, words: list[str]) -> int:
    """Counts the characters of lower-cased lines at which C4's expression finds a word."""
    pattern = rf"(?<=[^a-z])(?={'|'.join(rf'(?:{re.escape(word)}[^a-z])' for word in words)})"
    return sum(len(re.findall(pattern, line)) for line in text.lower().split("\n"))


@given(st.lists(st.lists(PIECES | st.text(max_size=2), max_size=12).map("".join), min_size=1))
def test_c4_needs_a_character_on_either_side(folder: Path, texts: list[str]) -> None:
    words = [word for word in WORDS["en"].split("\n") if word]
    values, failed = measure(texts, lists=str(folder), language="en", preset="c4-paper")
    for text, count, failures in zip(texts, values["bad_words"], failed):
        assert count == slow_paper_count(text, words), text
        expression = re.compile("[^a-z]({})[^a-z]".format("|".join(map(re.escape, words))))
        assert bool(failures) == any(expression.search(line) for line in text.lower().split("\n"))


def test_languages(folder: Path) -> None:
    texts = ["damn", "damn", "damn", "damn", "いい悪いよ"]
    values, failed = measure(texts, ["eng", None, "de", "eng_Latn", "jpn"], lists=str(folder))
    assert values["bad_words"] == [1, 1, None, 1, 1]
    assert values["bad_words_list"] == ["en", "en", None, "en", "ja"]
    assert list(map(bool, failed)) == [True, True, False, True, True]
    assert measure(texts, ["de"] * 5, lists=str(folder), language="en")[0]["bad_words"] == [1, 1, 1, 1, 0]
    assert measure(texts, lists=str(folder), default_language="ja")[0]["bad_words"] == [0, 0, 0, 0, 1]


def test_density_as_the_rule(folder: Path) -> None:
    texts = ["damn", "damn " * 10 + "é" * 950, "one damn word" + " in a long page" * 200, "nothing", ""]
    values, failed = measure(texts, lists=str(folder), max_density=9.9)
    assert values["bad_words"] == [1, 10, 1, 0, 0]
    assert values["bad_words_density"] == [1000 / 4, 10, 1000 / len(texts[2]), 0, 0]
    assert failed == [["bad_words_density"], ["bad_words_density"], [], [], []]
    assert measure(["damn"], ["xx"], lists=str(folder), max_density=0)[0]["bad_words_density"] == [None]
    with pytest.raises(ValueError, match="decides alone"):
        BadWordsConfig(max_density=1, keep_fraction=0.5)


def test_a_fraction_is_kept_by_id_alone(folder: Path) -> None:
    texts = ["damn"] * 2000 + ["fine"]
    failed = measure(texts, lists=str(folder), keep_fraction=0.3)[1]
    assert 500 < sum(not failures for failures in failed) - 1 < 700
    assert [not failures for failures in failed[:-1]] == [draw(f"id {place}") < 0.3 for place in range(2000)]
    assert not any(measure(texts, lists=str(folder), keep_fraction=1)[1])
    assert draw("id 0") == 0.9924213999243051


def test_lists_that_are_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder with lists of bad words\."):
        measure([""], lists="nowhere")
    with pytest.raises(InputError, match=r"there is no list for 'fr' \(expected a file .* there are \['el', 'en', 'ja', 'tr', 'zh'\]\)\."):
        measure([""], lists=str(folder), language="fr")


def test_lists_of_a_package(shared_data: Path) -> None:
    try:
        found = list_files("package://naughty-words", None)
    except InputError as error:
        pytest.skip(str(error))
    lists = shared_data / "toxicity" / "ldnoobw"
    assert sorted(found) == sorted(reference._BADWORDS_LANGS)
    assert all(read_words(path) == read_words(str(lists / name)) for name, path in found.items())


def test_the_language_that_a_step_before_has_found(folder: Path) -> None:
    step = BadWords(BadWordsConfig(lists=str(folder)))
    step.setup()
    texts = pa.array(["坏", "坏"], pa.large_string())
    batch = DocumentBatch(pa.table({"id": ["a", "b"]}), texts, "words", values={"language": pa.array(["zh", "en"])})
    assert pa.array(step.measure(batch).columns["bad_words"]).to_pylist() == [1, 0]
