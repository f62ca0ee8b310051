"""Compares the words of the rules `jieba`, `newmm` and `datatrove:LANGUAGE` with those of the libraries, and bounds what they cost."""

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pipeline.errors import InputError
from corpusmill.text.buffers import text_buffers
from corpusmill.text.datatrove_words import LONGEST, MOST_RUN, parts
from corpusmill.text.word_rules import WORD_RULES, check_word_rule, rule_libraries
from corpusmill.text.words import find_words, frequent_words

#: By rule: a language of the test data, and characters that its cases distinguish.
KERNELS = {
    "jieba": ("zh", "中国人民的一是了我不在有東京大學超龥鿕鿖㐀𠀀T恤卡拉OKab12.%-_+#& \u3000\n。"),
    "newmm": ("th", "".join(map(chr, [*range(0xE01, 0xE3B), *range(0xE3F, 0xE5C)])) + " ab12.,:\n\r\t\u3000\u00a0-é"),
}
LANGUAGES = {
    "fra_Latn": "fr", "rus_Cyrl": "ru", "hin_Deva": "hi", "cmn_Hani": "zh", "jpn_Jpan": "ja", "tha_Thai": "th", "kor_Hang": "ko",
}  # fmt: skip


def words_by(rule: str, texts: list[str]) -> list[list[str]]:
    """Returns the words as the marks of the rule cut them."""
    found, words = find_words(rule, *text_buffers(pa.array(texts, pa.large_string()))), []
    for begin, end in zip(found.offsets[:-1], found.offsets[1:]):
        begins = [begin + place for place in found.marks[begin:end].nonzero()[0]]
        spans = zip(begins, [*begins[1:], end])
        cut = [found.data[first:last].tobytes().decode() for first, last in spans]
        words.append([word.strip() if rule in ("spacy", "jieba") else word for word in cut])
    return words


@cache
def cut_by_library(rule: str) -> Callable[[str], list[str]]:
    if rule == "jieba":
        jieba = pytest.importorskip("jieba")
        jieba.setLogLevel(60)
        return lambda text: [word for word in jieba.cut(text) if word.strip()]
    tokenize = pytest.importorskip("pythainlp.tokenize").word_tokenize

    def cut(text: str) -> list[str]:  # as datatrove calls it
        return [word.strip() for word in tokenize(text, keep_whitespace=False, engine="newmm-safe") if word.strip()]

    return cut


@pytest.mark.parametrize("rule", KERNELS)
def test_real_texts(rule: str, shared_data: Path) -> None:
    cut, (language, characters), draw = cut_by_library(rule), KERNELS[rule], random.Random(1)
    text = (shared_data / f"lid/{language}.txt").read_text()
    texts = [*text.splitlines(), *(text[start : start + 5000] for start in range(0, 40_000, 5000))]
    texts += [(shared_data / f"lid/{other}.txt").read_text()[:3000] for other in ("ja", "ko", "en", "ru", "th", "zh")]
    texts += ["".join(draw.choice(characters) for _ in range(draw.randrange(400))) for _ in range(200)]
    assert words_by(rule, texts) == [cut(text) for text in texts]


@pytest.mark.parametrize("rule", KERNELS)
@settings(deadline=None)
@given(data=st.data())
def test_any_text(rule: str, data: Any) -> None:
    cut, text = cut_by_library(rule), st.text(st.sampled_from(KERNELS[rule][1]) | st.characters(exclude_categories=["Cs"]), max_size=300)
    texts = data.draw(st.lists(text, max_size=4))
    assert words_by(rule, texts) == [cut(text) for text in texts]


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_those_of_datatrove(language: str, shared_data: Path) -> None:
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    try:
        rule_libraries(f"datatrove:{language}")
    except InputError as error:
        pytest.skip(str(error))
    text = (shared_data / f"lid/{LANGUAGES[language]}.txt").read_text()
    texts = [text[:1500], "", " \n", "IS_ALPHA and 1,234.5 (a)", text[2000:3000]]
    words = words_by(f"datatrove:{language}", texts)
    assert words == [load_word_tokenizer(language).word_tokenize(text) for text in texts]
    assert len(words[0]) > 200 and words[1] == words[2] == []


def test_japanese_words_are_those_of_datatrove_for_any_text(shared_data: Path) -> None:
    pytest.importorskip("sudachipy")
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    text, draw = (shared_data / "lid/ja.txt").read_text(), random.Random(1)
    characters = "東京都に行くのをたアイｱｶﾞー三百１2.,5 \u3000\n\u3099\u200b\0\x1c(ふ)（）-~…㍻㌔ab_é😀"
    texts = [text[start : start + 5000] for start in range(0, 30_000, 5000)]  # 15 KB each
    texts += [(text + text)[:200_000], "".join(draw.choice(characters) for _ in range(20_000))]  # above datatrove's parts
    texts += ["".join(draw.choice(characters) for _ in range(draw.randrange(60))) for _ in range(300)]
    assert words_by("datatrove:jpn_Jpan", texts) == [load_word_tokenizer("jpn_Jpan").word_tokenize(text) for text in texts]


@pytest.mark.parametrize("rule", KERNELS)
def test_frequent_words_are_those_that_the_library_counts(rule: str, shared_data: Path) -> None:
    texts = (shared_data / f"lid/{KERNELS[rule][0]}.txt").read_text().splitlines()[:200]
    counts = Counter(word for text in texts for word in cut_by_library(rule)(text) if any(map(str.isalpha, word)))
    assert frequent_words(rule, texts, 50) == sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:50]
    assert [word for word, _ in frequent_words("characters", ["中文、ab中 ab １文", "中"], 3)] == ["中", "ab", "文"]


def test_long_texts_and_runs_are_cut() -> None:
    assert [*parts("a b\n" * 10)] == ["a b\n" * 10]
    for text in ("中" * 1_000_000, "(" * 1_000_000, "a b\n" * 100_000, "中文 " * 100_000):
        cut = [*parts(text)]
        assert max(map(len, cut)) <= LONGEST and max(map(len, "".join(cut).split())) <= MOST_RUN
        assert "".join("".join(cut).split()) == "".join(text.split())


@pytest.mark.parametrize("rule", KERNELS)
def test_a_megabyte_without_a_break_is_cut_by_kernels(rule: str) -> None:
    cut_by_library(rule)
    for character in "é中ก(":
        (words,) = words_by(rule, [character * 300_000])
        assert "".join(words) == character * 300_000


def test_unknown_rules_languages_and_missing_libraries_are_one_sentence() -> None:
    assert [check_word_rule(rule) for rule in WORD_RULES] == list(WORD_RULES)
    with pytest.raises(ValueError, match=r"'jeiba' is no word rule \(did you mean jieba\?"):
        check_word_rule("jeiba")
    with pytest.raises(ValueError, match="no word rule"):
        check_word_rule("datatrove")
    with pytest.raises(InputError, match=r"no words for the language 'cmn_Hanj' \(did you mean cmn_Hani\?\)"):
        rule_libraries("datatrove:cmn_Hanj")
    with pytest.MonkeyPatch.context() as patch:
        import datatrove.utils._import_utils as imports
        from datatrove.utils.word_tokenizers import load_word_tokenizer

        load_word_tokenizer.cache_clear()
        patch.setattr(imports, "_is_package_available", lambda name: False)
        with pytest.raises(InputError, match="pip install"):
            rule_libraries("datatrove:kor_Hang")
        load_word_tokenizer.cache_clear()
