"""Compares the kernels over lines with plain Python."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
from ccnet_form import ccnet_form
from datatrove.data import Document
from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig
from datatrove.utils.text import TextNormConfig
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.dedup.inside.lines import cut_units, unit_keys
from corpusmill.dedup.inside.sections import KeyTable
from corpusmill.text.buffers import text_buffers

TEXTS = st.lists(
    st.lists(st.sampled_from(["", " ", "a", " A", "b.", "a»", "1", "٢", "»", "—", "\ta\r", "É", "é", "\x85", "…"]), max_size=9), max_size=6
)
FORMS = {
    "ccnet": ccnet_form,
    "words": lambda line: re.sub(r"\W", "", re.sub(r"\d", "0", line.strip().lower())),
    "none": str.strip,
}


def form(line: str, how: str) -> str:
    """Returns a unit's form; the unit itself, marked, where its form is empty."""
    return FORMS[how](line) or f"bytes {line.strip()}"


def units(text: str, paragraphs: bool) -> list[str]:
    return re.split("\n{2,}" if paragraphs else "\n", text)


def keys_of(texts: list[str], how: str, paragraphs: bool, min_chars: int = 1):  # type: ignore[no-untyped-def]
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    return unit_keys(data, offsets, np.zeros(len(texts), np.uint64), how, paragraphs, min_chars)  # type: ignore[arg-type]


def slow_cut(text: str, cut: set[str], how: str, paragraphs: bool) -> str:
    """Removes units from a text: each with the newlines before it; blank units around it are merged into one."""
    parts = re.split("(\n{2,})" if paragraphs else "(\n)", text)
    out, blank, gap, some = "", True, False, False
    for place in range(0, len(parts), 2):
        unit, before = parts[place], parts[place - 1] if place else ""
        if unit.strip() and form(unit, how) in cut:
            gap = True
        elif unit.strip() or not (gap and blank):
            out += (before if some else "") + unit
            some, blank, gap = True, not unit.strip(), False
    return out.rstrip() if gap else out


@given(TEXTS, st.sampled_from(sorted(FORMS)), st.booleans(), st.integers(1, 3))
def test_units_are_cut_with_their_newlines(lines: list[list[str]], how: str, paragraphs: bool, least: int) -> None:
    texts = ["\n".join(text) for text in lines]
    found = [(i, form(unit, how)) for i, text in enumerate(texts) for unit in units(text, paragraphs) if unit.strip()]
    documents = Counter(unit for _, unit in set(found))
    cut = {unit for unit, count in documents.items() if count >= least}
    keys, _, _, _ = keys_of(texts, how, paragraphs)
    chosen = np.array(sorted({int(key) for key, (_, unit) in zip(keys, found, strict=True) if unit in cut}), np.uint64)
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    hosts, rows = np.zeros(len(texts), np.uint64), np.arange(len(texts))
    table = KeyTable(chosen, np.full(len(chosen), -1))
    new, counts = cut_units(data, offsets, hosts, rows, how, paragraphs, 1, table)  # type: ignore[arg-type]
    new.validate(full=True)
    assert new.to_pylist() == [slow_cut(text, cut, how, paragraphs) for text in texts]
    assert counts.tolist() == [[sum(i == t for i, _ in found), sum(i == t and u in cut for i, u in found)] for t in range(len(texts))]


def datatrove(texts: list[str], folder: Path) -> list[str]:
    """Returns the texts after datatrove's three steps, with one line per span, compared unchanged."""
    as_is = TextNormConfig(
        lowercase=False, norm_whitespace=False, remove_punctuation=False, norm_unicode_diacritics=False, norm_numbers=False
    )
    config = SentDedupConfig(
        n_sentences=1, split_sentences=False, only_dedup_in_index=False, min_doc_words=0, min_num_sentences=0, norm_config=as_is
    )
    documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    SentenceDedupSignature(str(folder / "signatures"), config=config).run(documents)
    SentenceFindDedups(str(folder / "signatures"), str(folder / "found"), config=config).run()
    kept = {document.id: document.text for document in SentenceDedupFilter(str(folder / "found"), config=config).run(documents)}
    return [kept.get(str(i), "") for i in range(len(texts))]


def test_lines_of_a_play(shared_data: Path, tmp_path: Path, dedup) -> None:  # type: ignore[no-untyped-def]
    play = next((shared_data / "text").rglob("*hakespeare*.txt")).read_text().splitlines()
    texts = ["\n".join(play[at : at + 100]) for at in range(0, 20_000, 100)]
    expected = [[line for line in text.split("\n") if line.strip()] for text in datatrove(texts, tmp_path)]
    off = {"enabled": False}
    result = dedup([texts[:70], texts[70:71], texts[71:]], exact=off, minhash=off, lines={"keep": "first", "normalisation": "none"})
    found = [[line for line in text.split("\n") if line.strip()] for text in result.kept]
    assert found == expected
    assert sum(row["lines_cut"] for row in result.report) == sum(len(list(filter(str.strip, text.split("\n")))) for text in texts) - sum(
        map(len, expected)
    )
    assert sum(row["lines_cut"] for row in result.report) > 3000
