import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.lang.de.stop_words import STOP_WORDS as GERMAN
from spacy.lang.en.stop_words import STOP_WORDS as ENGLISH

from corpusmill.filters.step import DocumentBatch
from corpusmill.filters.stop_words import StopWords, StopWordsConfig, languages, stop_words
from corpusmill.pipeline.errors import ConfigError, InputError

PIECES = st.sampled_from(
    ["the ", "The", "THE", "of", "der ", "über ", "ÜBER", "_", " ", ".", "é", "漢", "İs", "\0", "\n", "not-", "don't "]
)


def lower(text: str) -> str:
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def reference(text: str, words: set[str]) -> list[float]:
    found = [lower(word) for word in re.findall(r"\w+", text)]
    listed = {lower(word) for word in words}
    stops = [word for word in found if word in listed]
    return [len(stops), len(set(stops)), len(stops) / len(found) if found else math.nan]


def check(measure_step: Callable, texts: list[str], language: str, words: set[str]) -> None:
    columns, _ = measure_step("stop_words", {"language": language}, texts)
    for place, text in enumerate(texts):
        assert [values[place] for values in columns.values()] == pytest.approx(reference(text, words), abs=0, nan_ok=True), text[:200]


@pytest.mark.parametrize(("language", "words"), [("en", ENGLISH), ("deu_Latn", GERMAN)])
def test_real_documents(texts: list[str], measure_step: Callable, language: str, words: set[str]) -> None:
    check(measure_step, texts, language, words)


@given(st.lists(st.lists(st.one_of(PIECES, st.characters(exclude_categories=["Cs"])), max_size=60).map("".join), min_size=1, max_size=5))
def test_any_text(measure_step: Callable, texts: list[str]) -> None:
    check(measure_step, texts, "en", ENGLISH)


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


def test_lists(tmp_path: Path, measure_step: Callable) -> None:
    assert len(languages()) > 50 and "the" in stop_words("en")
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"en": ["Foo", "bar"]}))
    assert measure_step("stop_words", {"lists": str(path)}, ["foo Bar bar the"])[0]["different_stop_words"] == [2]
    with pytest.raises(ConfigError, match="there are no stop words for the language 'zh'"):
        measure_step("stop_words", {"language": "zh"}, ["a"])
    path = tmp_path / "wrong.json"
    path.write_text('{"en": "foo"}')
    with pytest.raises(InputError, match=r"wrong\.json: is no JSON object of lists of words by language"):
        measure_step("stop_words", {"lists": str(path)}, ["a"])
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: is no JSON \("):
        stop_words("en", str(path))
