"""Compares steps that measure as other projects do with slow versions of those projects' code, and with numbers that they printed."""

import json
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import fasttext
import ftfy
import pyarrow as pa
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from spacy.lang.de.stop_words import STOP_WORDS as GERMAN
from spacy.lang.en.stop_words import STOP_WORDS as ENGLISH
from uniseg.wordbreak import words as uniseg_words

from corpusmill.filters.compat.nemo import BULLETS, COMMON_WORDS, ELLIPSES, POLICY
from corpusmill.filters.step import DocumentBatch
from corpusmill.filters.stop_words import StopWords, StopWordsConfig, languages, stop_words
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.text.damage import mojibake_rate


def texts_of(letters: str, *longer: str, without: Sequence[str] = ("Cs",)) -> st.SearchStrategy[str]:
    """Returns texts of these letters, these longer pieces, and any characters."""
    return st.lists(st.sampled_from([*letters, *longer]) | st.characters(exclude_categories=without), max_size=120).map("".join)


# ---- Dolma: dolma/taggers/gopher.py (1.2.1), and numbers that dolma itself printed.

DOLMA_TEXTS = texts_of("aab-*#…\n\n\n  \u2028\u3000漢é😀\0", "the ", "of ", "ab c ", "- ", "…\n", "x" * 300, "x" * 255 + " ")


def dolma_values(text: str, tagger: str) -> list[float]:
    """Returns the values in the order of the columns, as `get_attributes` makes them; NaN for n-grams that it does not name."""
    if not text:
        return [0.0] * 9 + [math.nan] * 9
    words = text.split()
    characters = sum(map(len, words))
    lines = text.split("\n") if tagger == "gopher_v1" else re.split(r"\n+", text)
    copies = {line: count for line, count in Counter(lines).items() if count > 1}
    values = [
        len(words),
        float(median(map(len, words))) if words else 0.0,
        sum("#" in word or "…" in word for word in words) / max(len(words), 1),
        sum(any(c.isalpha() for c in word) for word in words) / max(len(words), 1),
        sum(word in {"the", "be", "to", "of", "and", "that", "have", "with"} for word in words),
        sum(line.startswith(("*", "-")) for line in lines) / len(lines),
        sum(line.endswith("…") for line in lines) / len(lines),
        sum(copies.values()) / len(lines),
        sum(len(line) * count for line, count in copies.items()) / max(characters, 1),
    ]
    for n in range(2, 11):
        counts = Counter(zip(*[words[place:] for place in range(n)]))
        if not counts:
            values.append(math.nan)
        elif n < 5:
            ngram, count = counts.most_common(1)[0]
            values.append(count * len("".join(ngram)) / max(characters, 1))
        else:
            lengths = {ngram: count * len("".join(ngram)) for ngram, count in counts.items()}
            values.append(sum(lengths[ngram] for ngram, count in counts.items() if count > 1) / max(sum(lengths.values()), 1))
    return values


def test_numbers_that_dolma_printed(measure_step: Callable) -> None:
    lines = "- the quick brown fox and the lazy dog\n* of # course…\n\nthe quick brown fox and the lazy dog\nto be… or not to be #1\n\nend…"
    block = " ".join(["one two three four five six seven eight nine ten eleven twelve"] * 2 + ["thirteen fourteen"])
    columns, _ = measure_step("dolma", {}, [lines, block, "漢字 かな é"])
    expected = [
        [29, 3.0, 0.1724137931034483, 0.8620689655172413, 10, 0.2857142857142857, 0.2857142857142857, 0.2857142857142857, 0.0,
         0.17777777777777778, 0.28888888888888886, 0.35555555555555557,
         0.36548223350253806, 0.2907488986784141, 0.2043222003929273, 0.1039426523297491, 0.0, 0.0],
        [26, 4.0, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.1016949152542373, 0.1864406779661017, 0.2542372881355932,
         0.6985446985446986, 0.6411657559198543, 0.5770491803278689, 0.5083207261724659, 0.4301994301994302, 0.3423913043478261],
        [3, 2.0, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.8, 1.0],
    ]  # fmt: skip
    for place, values in enumerate(expected):
        assert [column[place] for column in columns.values()][: len(values)] == values
    assert all(math.isnan(columns[name][2]) for name in list(columns)[11:])


# ---- DCLM: baselines/mappers/filters/content_filters.py, with fastText's and uniseg's own words.

DCLM_STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
DCLM_TEXTS = texts_of(
    "aab-*#…●•.'’:,_\n\n\n \u2028\u3000漢カé\u0301\u200d😀\0", "the ", "OF ", "Wİth ", "to ", ". . . ", "...", "- ", "…\n", "3.5",
    "a’b", "\r\n", "ab c ", "ab c ", "ab c ", without=("Cs", "Cn"),
)  # fmt: skip


def split_paragraphs(text: str, paragraph_end: str) -> list[str]:
    return [p for piece in re.split(paragraph_end, text) if (p := piece.strip())]


def repeated_segments(segments: list[str]) -> list[float]:
    if not segments:
        return [math.nan, math.nan]
    copies = {segment: count for segment, count in Counter(segments).items() if count > 1}
    characters = sum(len(segment) * count for segment, count in copies.items())
    return [sum(copies.values()) / len(segments), characters / sum(map(len, segments))]


def repeated_ngrams(words: list[str], n: int) -> float:
    total = sum(map(len, words))
    ngrams = list(zip(*[words[place:] for place in range(n)]))
    counts = Counter(ngrams).most_common()
    if not total:
        return math.nan
    if not counts or counts[0][1] == 1:
        return 0.0
    if n < 5:
        return max(len("".join(ngram)) for ngram, count in counts if count == counts[0][1]) * counts[0][1] / total
    often = {ngram for ngram, count in counts if count > 1}
    places = {at + place for at, ngram in enumerate(ngrams) if ngram in often for place in range(n)}
    return sum(len(words[place]) for place in places) / total


def dclm_values(text: str) -> list[float]:
    """Returns the values in the order of the columns."""
    words = text.split()
    lines = split_paragraphs(text, "\n")
    ngram_words = [word for word in uniseg_words(text) if word[0].isalnum()]
    values: list[float] = [
        sum(token[0].isalnum() for token in fasttext.FastText.tokenize(text)),
        sum(word.lower() in DCLM_STOP_WORDS for word in words),
    ]
    if words:
        values.append(sum(map(len, words)) / len(words))
        values.append(sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…")) / len(words))
        values.append(sum(not any(c.isalpha() for c in word) for word in words) / len(words))
    else:
        values += [math.nan] * 3
    if lines:
        values.append(sum(line.startswith(("●", "•", "*", "-")) for line in lines) / len(lines))
        values.append(sum(line.endswith(("...", ". . .", "…")) for line in lines) / len(lines))
    else:
        values += [math.nan] * 2
    values += repeated_segments(lines) + repeated_segments(split_paragraphs(text, "\n\n"))
    return values + [repeated_ngrams(ngram_words, n) for n in range(2, 11)]


def test_values_of_dclm(measure_step: Callable) -> None:
    words = [f"w{n:06d}" + "x" * (n % 4 == 0) for n in range(88)]
    block = " ".join(words[:40] + words[10:22] + words[40:])  # 100 words, in which a block of 12 occurs twice
    eight = "abcd efghi jklm nopq rstu vwxy zabc defgij"
    columns, _ = measure_step("dclm", {}, [block, eight, "", "The OF\n\nthe of\n\nx"])
    assert columns["dclm_dup_5_gram_char_frac"][0] == columns["dclm_dup_10_gram_char_frac"][0] == pytest.approx(0.240, abs=1e-3)
    assert columns["dclm_top_2_gram_char_frac"][1] == 0.0
    assert columns["dclm_words"] == [100, 8, 0, 5] and columns["dclm_stop_words"][3] == 4
    assert columns["dclm_dup_para_frac"][3] == 0.0 and math.isnan(columns["dclm_dup_line_frac"][2])


# ---- NeMo Curator: stages/text/filters/heuristic, and numbers that NeMo printed.

NEMO_TEXTS = texts_of(
    "aabA0-*#…•●.!?”',_{}[(⟨\n\n\n\t \u2028\u3000漢é½²٣\u0301😀\0\x08%:/", "the ", "OF ", "...", "[…]", " read MORE", "read more..\n",
    "-» ", "##a ", "# ", "#a# ", "ab c ", "ab c ", "a b c d e f ", "http://", "https://", "httphttp://a", "https://x.y/%2f%2?q=1 ",
    "http://%zz", "Privacy Policy", "Uses cookies", "cookie", "\n\n", "lorem ",
)  # fmt: skip
URL = re.compile(r"https?://(?:[A-Za-z0-9$\-_@.&+/:=?#~]|[!*\(\),]|(?:%[0-9A-Fa-f]{2}))+")


def share(part: float, whole: float, empty: float = math.nan) -> float:
    return part / whole if whole else empty


def repeated_ngrams_of_nemo(words: list[str], n: int, text: str) -> float:
    """Returns the score of RepeatingTopNGramsFilter (the earliest of equally frequent n-grams) or RepeatingDuplicateNGramsFilter."""
    if len(words) < n:
        return 1.0
    ngrams = list(zip(*[words[place:] for place in range(n)]))
    if n < 5:
        top = " ".join(Counter(ngrams).most_common(1)[0][0])
        return (len(text) - len(text.replace(top, ""))) / len(text)
    seen: set[tuple[str, ...]] = set()
    characters = overlap = 0
    for ngram in ngrams:
        if ngram in seen:
            characters += sum(map(len, ngram[overlap:])) + min(n - overlap, n - 1)
            overlap = n
        seen.add(ngram)
        overlap = max(overlap - 1, 0)
    return characters / len(text)


def boilerplate(text: str) -> float:
    paragraphs = [paragraph.strip().lower() for paragraph in text.split("\n\n")]
    if any("lorem ipsum" in paragraph for paragraph in paragraphs):
        return 1.0
    return sum(any(phrase in paragraph for phrase in POLICY) for paragraph in paragraphs) / len(paragraphs)


def nemo_values(text: str) -> list[float]:
    """Returns the scores in the order of the columns; NaN where NeMo raises."""
    words = text.split()
    lines = [line for line in text.split("\n") if line.strip()]
    paragraphs = text.split("\n\n")
    symbols = [word in ELLIPSES or len(re.findall("#+", word)) / len(word) > 0.5 for word in words]
    return [
        len(words),
        max(map(len, words), default=0),
        sum(word in COMMON_WORDS for word in words),
        share(sum(map(len, words)), len(words)),
        share(sum(symbols), len(words)),
        share(sum(bool(regex.search("[[:alpha:]]", word)) for word in words), len(words)),
        share(len(text) - len(re.findall("[a-zA-Z0-9\n?!,.]", text)), len(text), 1.0),
        share(len(regex.findall("[[:digit:]]", text)), len(text), 1.0),
        share(sum(c in "\t\n\r\b " for c in text), len(text), 1.0),
        share(len(re.findall(r"{|}|⟨|⟩|\[|\]|\(|\)", text)), len(text), 1.0),
        share(sum(map(len, URL.findall(text))), len(text), 1.0),
        share(sum(line.strip().startswith(tuple(BULLETS)) for line in lines), len(lines)),
        share(sum(line.strip().lower().endswith(ELLIPSES) for line in lines), len(lines)),
        share(sum(not line.strip().endswith((".", "?", "!", '"', "'")) for line in lines), len(lines)),
        share(len(set(lines)), len(lines)),
        share(len("".join(set(lines))), len("".join(lines))),
        len(set(paragraphs)) / len(paragraphs),
        share(len("".join(set(paragraphs))), len("".join(paragraphs))),
        boilerplate(text),
        *(repeated_ngrams_of_nemo(words, n, text) for n in range(2, 11)),
    ]


def test_numbers_that_nemo_printed(measure_step: Callable) -> None:
    page = (
        "# Read more\n• The #tags of the page https://example.org/a%20b?c=(d) and 12 more [x]\n\nThe #tags of the page that have a "
        "very long line in them that is said again and again\n• again … read MORE\n\nWe use cookies to be with you"
    )
    eights = "one two three four five six seven eight one two three four five six seven eight one two"
    columns, _ = measure_step("nemo", {}, [page, eights])
    # NeMo's most frequent n-grams are left out: they tie, and its choice among them varies.
    assert [values[0] for name, values in columns.items() if "top" not in name] == [
        45, 31, 12, 3.888888888888889, 0.044444444444444446, 0.8888888888888888, 0.25339366515837103, 0.01809954751131222,
        0.2081447963800905, 0.01809954751131222, 0.14027149321266968, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3333333333333333,
        0.09502262443438914, 0.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip
    assert columns["nemo_top_2_gram_ratio"][1] == 0.2413793103448276  # the only one of three copies
    assert [values[1] for values in columns.values()][-6:] == [0.5402298850574713] * 6


# ---- RedPajama-Data: app/src/core/quality_signals (natural_language, lines, repetitions, content).

REDPAJAMA_TEXTS = texts_of(
    "aabA-*#…•–.!?”’:,_{}\n\n\n \u2028\u3000漢カéÉǅⅠ½²\u0301ΣΑİſ😀\0\x1c", "the ", "OF ", "lorem ", "Ipsum ", "lorem ipſum",
    "javascript ", "...", "…\n", "3.5", "ΑΣ ", "ab c ", "ab c ", "bad", " bad word ",
)  # fmt: skip
BAD = {"bad", "bad word", "ab c ab", "é", "x"}


def normalize(text: str) -> str:
    text = text.translate(str.maketrans("", "", string.punctuation)).lower().strip()
    return unicodedata.normalize("NFD", re.sub(r"\s+", " ", text))


def mean(scores: list[float]) -> float:
    return sum(scores) / len(scores) if scores else math.nan


def redpajama_values(text: str) -> dict[str, float]:
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


def test_stop_words_of_a_file(measure_step: Callable, tmp_path: Path) -> None:
    path = tmp_path / "stop.json"
    path.write_text(json.dumps({"xx": ["Ab", "c"]}))
    columns, _ = measure_step("redpajama", {"stop_words": str(path), "language": "xx"}, ["Ab ab c d"])
    assert columns["rps_doc_stop_word_fraction"] == [0.5]
    assert list(columns) == list(redpajama_values(""))[:-1]  # the last one counts bad words, of which no list is given
    with pytest.raises(ConfigError, match=r"stop\.json: there is no list of stop words for the language 'en' \(there is one for xx\)"):
        measure_step("redpajama", {"stop_words": str(path)}, ["a"])
    with pytest.raises(InputError, match=r"missing\.txt: can't be read \(No such file"):
        measure_step("redpajama", {"bad_words": str(tmp_path / "missing.txt")}, ["a"])


# ---- Stop words.

STOP_WORD_TEXTS = texts_of("_ .é漢\0\n", "the ", "The", "THE", "of", "der ", "über ", "ÜBER", "İs", "not-", "don't ")


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def stop_word_values(text: str, words: set[str]) -> list[float]:
    found = [lower(word) for word in re.findall(r"\w+", text)]
    listed = {lower(word) for word in words}
    stops = [word for word in found if word in listed]
    return [len(stops), len(set(stops)), len(stops) / len(found) if found else math.nan]


def test_each_document_by_its_own_language(tmp_path: Path) -> None:
    texts, codes = ["the der and und"] * 6, ["en", "de", "deu_Latn", "xx", "zh", None]
    step = StopWords(StopWordsConfig(column="language"))
    step.setup()
    batch = DocumentBatch(pa.table({"language": codes}), pa.array(texts, pa.large_string()), "words")
    columns = step.measure(batch).columns
    assert pa.array(columns["stop_words"]).to_pylist() == [2, 2, 2, None, None, None]
    assert columns["stop_word_share"][:3].tolist() == [0.5, 0.5, 0.5] and all(map(math.isnan, columns["stop_word_share"][3:]))
    with pytest.raises(InputError, match=r"the documents have no column language, which `stop_words` takes"):
        step.measure(DocumentBatch(pa.table({"x": codes}), pa.array(texts, pa.large_string()), "words"))


def test_lists_of_stop_words(tmp_path: Path, measure_step: Callable) -> None:
    assert len(languages()) > 50 and "the" in stop_words("en") == stop_words("en-GB")
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"en": ["Foo", "bar"]}))
    assert measure_step("stop_words", {"lists": str(path)}, ["foo Bar bar the"])[0]["different_stop_words"] == [2]
    with pytest.raises(ConfigError, match="there are no stop words for the language 'zh'"):
        measure_step("stop_words", {"language": "zh"}, ["a"])
    path = tmp_path / "wrong.json"
    path.write_text('{"en": "foo"}')
    with pytest.raises(InputError, match=r"wrong\.json: is no JSON object of lists of words by language"):
        measure_step("stop_words", {"lists": str(path)}, ["a"])


# ---- Damaged encodings.

SPACES = "\t\n\v\f\r\x85"
DAMAGED_TEXTS = texts_of("ab é\ufffd\0\x07\x7f\x85\x9f\ue000\uf8ff\ufdd0\uffff\U0001fffe\U000f0000\U0010ffff\n")


def damage(text: str) -> list[float]:
    if not text:
        return [math.nan] * 4
    noncharacter = [0xFDD0 <= ord(c) <= 0xFDEF or ord(c) & 0xFFFE == 0xFFFE for c in text]
    return [
        text.count("\ufffd") / len(text),
        sum(unicodedata.category(c) == "Cc" and c not in SPACES for c in text) / len(text),
        sum(unicodedata.category(c) == "Co" or odd for c, odd in zip(text, noncharacter)) / len(text),
        mojibake_rate(text),
    ]


def test_a_text_read_in_a_wrong_encoding(measure_step: Callable) -> None:
    good = "Die Größe der Straße – schön, für jeden über der Brücke."
    bad = good.encode().decode("windows-1252")
    assert ftfy.fix_encoding(bad) == good
    columns, _ = measure_step("encoding_damage", {}, [good, bad])
    assert columns["mojibake_char_ratio"][0] == 0.0 and columns["mojibake_char_ratio"][1] > 0.2


# ---- All of them, on real documents and on any text.

Case = tuple[str, dict[str, Any], Callable[[str], Iterable[float]], st.SearchStrategy[str]]
CASES: dict[str, Case] = {
    "dolma v1": ("dolma", {"tagger": "gopher_v1"}, lambda text: dolma_values(text, "gopher_v1"), DOLMA_TEXTS),
    "dolma v2": ("dolma", {"tagger": "gopher_v2"}, lambda text: dolma_values(text, "gopher_v2"), DOLMA_TEXTS),
    "dclm": ("dclm", {}, dclm_values, DCLM_TEXTS),
    "nemo": ("nemo", {}, nemo_values, NEMO_TEXTS),
    "redpajama": ("redpajama", {"bad_words": "en.txt"}, lambda text: redpajama_values(text).values(), REDPAJAMA_TEXTS),
    "stop words": ("stop_words", {"language": "en"}, lambda text: stop_word_values(text, ENGLISH), STOP_WORD_TEXTS),
    "German stop words": ("stop_words", {"language": "deu_Latn"}, lambda text: stop_word_values(text, GERMAN), STOP_WORD_TEXTS),
    "damage": ("encoding_damage", {}, damage, DAMAGED_TEXTS),
}


@pytest.fixture(scope="module")
def check(measure_step: Callable, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, list[str]], None]:
    bad_words = tmp_path_factory.mktemp("words") / "en.txt"
    bad_words.write_text("\n".join(sorted(BAD)) + "\n\n")

    def compare(case: str, texts: list[str]) -> None:
        name, options, reference, _ = CASES[case]
        columns, _ = measure_step(name, options | ({"bad_words": str(bad_words)} if "bad_words" in options else {}), texts)
        for place, text in enumerate(texts):
            for (column, values), wanted in zip(columns.items(), reference(text), strict=True):
                found = values[place]
                assert found == wanted or (math.isnan(found) and math.isnan(wanted)), (column, text[:200], found, wanted)

    return compare


@pytest.mark.parametrize("case", CASES)
def test_real_documents(check: Callable, texts: list[str], case: str) -> None:
    check(case, [text[:1500] for text in texts] if case == "dclm" else texts)


@pytest.mark.parametrize("case", CASES)
@given(data=st.data())
def test_any_text(check: Callable, case: str, data: st.DataObject) -> None:
    check(case, data.draw(st.lists(CASES[case][3], min_size=1, max_size=6)))
