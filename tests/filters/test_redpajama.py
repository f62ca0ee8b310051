"""Compares values with a slow version of RedPajama-Data's app/src/core/quality_signals (natural_language, lines, repetitions, content)."""

import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.filters.stop_words import stop_words
from corpusmill.pipeline.errors import ConfigError, InputError

SINGLE = "aabA-*#…•–.!?”’:,_{}\n\n\n \u2028\u3000漢カéÉǅⅠ½²\u0301ΣΑİſ😀\0\x1c"
LONGER = [
    "the ",
    "OF ",
    "lorem ",
    "Ipsum ",
    "lorem ipſum",
    "javascript ",
    "...",
    "…\n",
    "3.5",
    "ΑΣ ",
    "ab c ",
    "ab c ",
    "bad",
    " bad word ",
]
TEXT = st.lists(st.one_of(st.sampled_from([*SINGLE, *LONGER]), st.characters(exclude_categories=["Cs"])), max_size=120).map("".join)
BAD = {"bad", "bad word", "ab c ab", "é", "x"}


def normalize(text: str) -> str:
    text = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


def mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else math.nan


def reference(text: str) -> dict[str, float]:
    content = normalize(text)
    words, raw = content.split(), re.findall(r"\w+|[^\w\s]+", text)  # NLTK's WordPunctTokenizer, before 3.10
    lines = re.findall(r"([^\n]*\n|[^\n]+$)", text)
    plain = [normalize(line) for line in lines]
    stops = stop_words("en")
    counter = Counter(words)
    values: dict[str, float] = {
        "doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "doc_word_count": len(words),
        "doc_mean_word_length": mean([len(word) for word in words]),
        "doc_symbol_to_word_ratio": sum(text.count(x) for x in ("#", "...", "…")) / len(raw) if raw else math.nan,
        "doc_frac_lines_end_with_ellipsis": mean([line.rstrip().endswith(("...", "…")) for line in lines]),
        "doc_frac_no_alph_words": 1.0 - mean([bool(re.search("[a-zA-Z]", word)) for word in raw]),
        "doc_frac_unique_words": len(set(words)) / len(words) if words else math.nan,
        "doc_unigram_entropy": sum(-x / len(words) * math.log(x / len(words)) for x in counter.values()) if words else math.nan,
        "doc_frac_all_caps_words": mean([word.isupper() for word in raw]),
        "doc_lorem_ipsum": len(re.findall("lorem ipsum", content, re.IGNORECASE)) / len(content) if "lorem ipsum" in content else 0.0,
        "doc_curly_bracket": (text.count("{") + text.count("}")) / len(text) if text else 0.0,
        "doc_stop_word_fraction": mean([word in stops for word in raw]) if words else 0.0,
    }
    total = sum(map(len, words))
    for n in range(2, 11):
        ngrams = list(zip(*[words[place:] for place in range(n)]))
        counts = Counter(ngrams)
        if n < 5:
            ngram, count = counts.most_common(1)[0] if counts else ((), 0)
            values[f"doc_frac_chars_top_{n}gram"] = len("".join(ngram)) * count / total if count > 1 else 0.0
        else:
            places = {at + place for at, ngram in enumerate(ngrams) if counts[ngram] > 1 for place in range(n)}
            values[f"doc_frac_chars_dupe_{n}grams"] = sum(len(words[place]) for place in places) / total if total else 0.0
    values["lines_javascript_counts"] = sum(line.split().count("javascript") for line in plain)
    values["lines_ending_with_terminal_punctution_mark"] = mean([line.rstrip().endswith((".", "!", "?", "”")) for line in lines])
    values["lines_num_words"] = mean([len(line.split()) for line in plain])
    values["lines_uppercase_letter_fraction"] = mean([sum(map(str.isupper, line)) / len(line) for line in lines])
    values["lines_numerical_chars_fraction"] = mean([sum(map(str.isnumeric, line)) / len(line) if line else 0.0 for line in plain])
    values["lines_start_with_bulletpoint"] = mean([line.lstrip().startswith(tuple("•‣▶◀◦■□▪▫–")) for line in lines])
    values["lines"] = len(lines)
    joined = [" ".join(ngram) for n in {1 + word.count(" ") for word in BAD} for ngram in zip(*[words[place:] for place in range(n)])]
    values["doc_ldnoobw_words"] = sum(ngram in BAD for ngram in joined)
    return {f"rps_{name}": round(value, 8) for name, value in values.items()}


@pytest.fixture(scope="module")
def bad_words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("words") / "en.txt"
    path.write_text("\n".join(sorted(BAD)) + "\n\n")
    return str(path)


def check(measure_step: Callable, texts: list[str], bad_words: str) -> None:
    columns, _ = measure_step("redpajama", {"bad_words": bad_words}, texts)
    for place, text in enumerate(texts):
        expected = reference(text)
        assert list(columns) == list(expected)
        for name, wanted in expected.items():
            found = columns[name][place]
            assert found == wanted or (math.isnan(found) and math.isnan(wanted)), (name, text[:200], found, wanted)


def test_real_documents(texts: list[str], measure_step: Callable, bad_words: str) -> None:
    check(measure_step, texts, bad_words)


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_text(measure_step: Callable, bad_words: str, texts: list[str]) -> None:
    check(measure_step, texts, bad_words)


def test_values(measure_step: Callable) -> None:
    columns, _ = measure_step("redpajama", {}, ["Lorem, IPSUM! dolor.\n• {A} b", ""])
    assert "rps_doc_ldnoobw_words" not in columns
    assert columns["rps_doc_lorem_ipsum"][0] == round(1 / len("lorem ipsum dolor • a b"), 8)
    assert columns["rps_lines_start_with_bulletpoint"][0] == 0.5 and columns["rps_doc_word_count"] == [6, 0]
    assert columns["rps_doc_num_sentences"] == [3, 0] and columns["rps_lines"] == [2, 0]


def test_stop_words_of_a_file(measure_step: Callable, tmp_path: Path) -> None:
    path = tmp_path / "stop.json"
    path.write_text(json.dumps({"xx": ["Ab", "c"]}))
    columns, _ = measure_step("redpajama", {"stop_words": str(path), "language": "xx"}, ["Ab ab c d"])
    assert columns["rps_doc_stop_word_fraction"] == [0.5]
    with pytest.raises(ConfigError, match=r"stop\.json: there is no list of stop words for the language 'en' \(there is one for xx\)"):
        measure_step("redpajama", {"stop_words": str(path)}, ["a"])
    with pytest.raises(InputError, match=r"missing\.txt: can't be read \(No such file"):
        measure_step("redpajama", {"bad_words": str(tmp_path / "missing.txt")}, ["a"])
