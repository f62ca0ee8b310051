"""Repeated lines that stay once, against datatrove's sentence deduplication on lines of real text."""

from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig
from datatrove.utils.text import TextNormConfig


def datatrove(texts: list[str], folder: Path) -> list[str]:
    """The texts after its three steps, one line a span, compared as they are."""
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
