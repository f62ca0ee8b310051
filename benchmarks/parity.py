"""Compares every value and verdict of datatrove's heuristic filters with corpusmill's, document by document.

    python benchmarks/parity.py DOCUMENTS.parquet ... [--documents 5000] [--word-rule spacy|words]
    python benchmarks/parity.py DOCUMENTS.parquet ... --language cmn_Hani [--documents 1000]

The documents are chosen evenly from the given files. Compared are the language, all values of Gopher repetition, Gopher quality, C4 (with
its remaining text) and FineWeb quality, each with datatrove's own functions on the same text, and the verdict and first reason of
FineWeb's chain after the language. With `spacy` datatrove runs with its defaults; with `words` its tokenizer is `re.findall`.

With `--language` the chain is FineWeb-2's for that language, without the language itself. Compared are the words by `datatrove:LANGUAGE`
and by the preset's rule, the verdict with its first reason, and the documents a second of both on one core, once all is compiled.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate, find_duplicates, find_top_duplicate, get_n_grams
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_words
from datatrove_filters import language_filter

from corpusmill.filters import presets
from corpusmill.filters.rules import decide
from corpusmill.filters.worker import FilterConfig, FilterWorker
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.storage import Storage
from corpusmill.text.buffers import text_buffers
from corpusmill.text.words import find_words

STEPS = [
    {"language": {"min_letters": 0, "threshold": 0}},
    "gopher_repetition",
    "gopher_quality",
    {"c4": {"preset": "fineweb"}},
    "fineweb_quality",
]
MODULES = (gopher_repetition_filter, gopher_quality_filter, fineweb_quality_filter)
#: The prefixes of corpusmill's rules, by family.
OUR_NAMES = {"repetition_empty": "empty", "fineweb_empty": "empty"}


def spread(paths: list[Path], wanted: int) -> list[str]:
    """Returns about `count` documents with text, at equal distances."""
    texts = ds.dataset([str(path) for path in paths]).to_table(columns=["text"])["text"]
    step = max(len(texts) // wanted, 1)
    return [text for text in texts.take(pa.array(range(0, len(texts), step))).to_pylist() if text][:wanted]


def repetition_values(text: str, words: list[str]) -> dict[str, float]:
    paragraphs = re.split(r"\n{2,}", text.strip())
    lines = re.split("\n+", text)
    values = {}
    for name, items in (("para", paragraphs), ("line", lines)):
        copies, characters = find_duplicates(items)
        values[f"dup_{name}_frac"], values[f"dup_{name}_char_frac"] = copies / len(items), characters / len(text)
    for n in (2, 3, 4):
        ngrams = get_n_grams(words, n)
        values[f"top_{n}_gram_char_frac"] = (find_top_duplicate(ngrams) if ngrams else 0) / len(text)
    for n in range(5, 11):
        values[f"dup_{n}_gram_char_frac"] = find_all_duplicate(words, n) / len(text)
    return values


def quality_values(text: str, words: list[str]) -> dict[str, float]:
    lines = text.splitlines()
    filled = [word for word in words if any(character not in PUNCTUATION_SET for character in word)]
    values: dict[str, float] = {"gopher_words": len(filled), "gopher_all_words": len(words)}
    if filled:
        values["gopher_mean_word_length"] = sum(map(len, filled)) / len(filled)
    if words:
        values["gopher_hash_ratio"] = text.count("#") / len(words)
        values["gopher_ellipsis_ratio"] = (text.count("...") + text.count("…")) / len(words)
        values["gopher_alpha_word_ratio"] = sum(any(c.isalpha() for c in word) for word in words) / len(words)
    if lines:
        values["gopher_bullet_line_ratio"] = sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines)
        values["gopher_ellipsis_line_ratio"] = sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines)
    values["gopher_stop_words"] = len(set(gopher_quality_filter.STOP_WORDS).intersection(words))
    return values


def fineweb_values(text: str, words: list[str]) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    values: dict[str, float] = {"fineweb_lines": len(lines)}
    if lines:
        values["line_punct_ratio"] = sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in lines) / len(lines)
        values["short_line_ratio"] = sum(len(line) <= 30 for line in lines) / len(lines)
        values["char_dup_ratio"] = find_duplicates(lines)[1] / len(text.replace("\n", ""))
    if words:
        values["list_ratio"] = text.count("\n") / len(words)
    return values


def c4_values(text: str) -> tuple[str, dict[str, float]]:
    """Returns datatrove's remaining text and its number of sentences, without the rules that drop a document."""
    sentences = 0

    def count(line: str, language: str) -> list[str]:
        nonlocal sentences
        found: list[str] = split(line, language)
        sentences += len(found)
        return found

    split, c4_filters.split_into_sentences = c4_filters.split_into_sentences, count
    document = Document(text=text, id="")
    c4_filters.C4QualityFilter(
        filter_no_terminal_punct=False, filter_lorem_ipsum=False, filter_curly_bracket=False, min_num_sentences=0
    ).filter(document)
    c4_filters.split_into_sentences = split
    return document.text, {"c4_sentences": sentences}


def first_reason(chain: list[Any], text: str) -> str | None:
    document = Document(text=text, id="")
    for step in chain:
        kept, reason = get_filter_result(step.filter(document))
        if not kept:
            return str(reason)
    return None


def fineweb2_chain(language: str) -> list[Any]:
    """Returns datatrove's filters with the arguments of FineWeb-2's script."""
    row = json.loads(Path(presets.__file__).with_name("fineweb2.json").read_text("utf-8"))["languages"][language]
    return [
        GopherRepetitionFilter(
            dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0, dup_line_frac=row["dup_line_frac"], language=language,
            top_n_grams=tuple(zip((2, 3, 4), row["top_n_grams"])), dup_n_grams=tuple(zip(range(5, 11), row["dup_n_grams"])),
        ),
        FineWebQualityFilter(
            short_line_thr=999, char_duplicates_ratio=0.1, line_punct_thr=row["line_punct_thr"], new_line_ratio=row["new_line_ratio"],
            language=language,
        ),
        GopherQualityFilter(
            max_avg_word_length=row["max_avg_word_length"], min_avg_word_length=row["min_avg_word_length"], stop_words=row["stopwords"],
            max_non_alpha_words_ratio=row["max_non_alpha_words_ratio"], min_stop_words=2, language=language,
        ),
    ]  # fmt: skip


def found_words(rule: str, texts: list[str]) -> list[list[str]]:
    """Returns the words of each text by a word rule that needs a library."""
    found, words = find_words(rule, *text_buffers(pa.array(texts, pa.large_string()))), []
    data, marked = found.data.tobytes(), found.marks.nonzero()[0].tolist()
    ends = [*marked[1:], len(data)]
    spans = iter(zip(marked, ends))
    span = next(spans, None)
    for end in found.offsets[1:].tolist():
        words.append(list[str]())
        while span and span[0] < end:
            words[-1].append(data[span[0] : min(span[1], end)].decode().strip())
            span = next(spans, None)
    return words


def compare_language(texts: list[str], language: str) -> bool:
    """Prints how much of datatrove's words and of its verdicts by FineWeb-2's chain the word rules give. Returns whether all are equal."""
    chain, equal = fineweb2_chain(language), True
    first_reason(chain, texts[0])
    theirs, reasons, expected = 0.0, list[str | None](), list[list[str]]()
    for text in texts:
        begun = time.process_time()
        try:
            reasons.append(first_reason(chain, text))
        except ZeroDivisionError:  # no words
            reasons.append("list_ratio")
        theirs += time.process_time() - begun
        expected.append(split_into_words(text, language))  # which datatrove still has from the filters
    print(f"{language}: {len(texts):,} documents, {sum(map(len, texts)):,} characters, {sum(map(len, expected)):,} words")
    print("datatrove's verdicts: " + ", ".join(f"{r} {n:,}" for r, n in Counter(map(str, reasons)).most_common()))
    preset = FilterConfig.model_validate({"preset": "fineweb-2", "language": language})
    documents = pa.Table.from_pylist([dict.fromkeys(DOCUMENTS.names) | {"id": "", "source": "", "text": text} for text in texts], DOCUMENTS)
    for rule in dict.fromkeys((f"datatrove:{language}", preset.word_rule)):
        section = {"steps": preset.steps[1:4], "thresholds": preset.thresholds, "word_rule": rule}
        worker = FilterWorker(FilterConfig.model_validate(section), Storage("."), {})
        worker.measure(documents[:1], pa.array(texts[:1], pa.large_string()))
        begun = time.process_time()
        columns, _ = worker.measure(documents, pa.array(texts, pa.large_string()))
        failed = decide(worker.rules, columns, len(texts)).to_pylist()
        ours = time.process_time() - begun
        words = found_words(rule, texts[: 100 if rule.startswith("datatrove:") else None])  # the library's, once more
        same = sum((Counter(mine) & Counter(others)).total() for mine, others in zip(words, expected))
        total = sum(map(len, expected[: len(words)]))
        verdicts = sum((OUR_NAMES.get(names[0], names[0]) if names else None) == reason for names, reason in zip(failed, reasons))
        print(
            f"{rule}: {same:,} of {total:,} words, those of {sum(map(list.__eq__, words, expected)):,} of {len(words):,} documents, "
            f"and {verdicts:,} verdicts and first reasons equal; {len(texts) / ours:,.0f} documents a second, "
            f"{theirs / ours:.1f} times datatrove's {len(texts) / theirs:,.0f}"
        )
        equal &= words == expected[: len(words)] and verdicts == len(texts)
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="Parquet files with a column text")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--word-rule", choices=["spacy", "words"], default="spacy")
    parser.add_argument("--language", help="compare FineWeb-2's chain for this language, such as cmn_Hani")
    arguments = parser.parse_args()
    texts = spread(arguments.data, arguments.documents)
    if arguments.language:
        sys.exit(not compare_language(texts, arguments.language))
    words_of = split_into_words
    if arguments.word_rule == "words":
        find = re.compile(r"\w+|[^\w\s]").findall
        words_of = lambda text, language=None: find(text)  # noqa: E731
        for module in MODULES:
            module.split_into_words = words_of

    worker = FilterWorker(FilterConfig.model_validate({"steps": STEPS, "word_rule": arguments.word_rule}), Storage("."), {})
    worker.setup()
    rows = [dict.fromkeys(DOCUMENTS.names) | {"id": str(place), "source": "", "text": text} for place, text in enumerate(texts)]
    columns, new_texts = worker.measure(pa.Table.from_pylist(rows, schema=DOCUMENTS), pa.array(texts, pa.large_string()))
    failed = decide(worker.rules, columns, len(texts)).to_pylist()
    values = {name: column.to_pylist() for name, column in columns.items()}

    chain = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    language = language_filter()
    compared, wrong, reasons, verdicts = 0, Counter(), Counter(), 0
    for place, text in enumerate(texts):
        new_text, expected = c4_values(text)
        words = words_of(text)
        expected |= repetition_values(text, words) | quality_values(text, words) | fineweb_values(new_text, words_of(new_text))
        compared += len(expected) + 1
        wrong.update(name for name, value in expected.items() if values[name][place] != value)
        document = Document(text=text, id="")
        language.filter(document)
        compared += 1
        wrong["language"] += values["language"][place] != document.metadata["language"]
        wrong["c4 text"] += new_texts[place].as_py() != new_text
        theirs = first_reason(chain, text)
        ours = OUR_NAMES.get(failed[place][0], failed[place][0]) if failed[place] else None
        verdicts += theirs == ours
        reasons[str(theirs)] += 1
    print(f"{len(texts):,} documents, {sum(map(len, texts)):,} characters, word rule {arguments.word_rule}")
    print(f"{compared - wrong.total():,} of {compared:,} values equal" + "".join(f"; {name}: {n} differ" for name, n in wrong.items() if n))
    print(
        f"{verdicts:,} of {len(texts):,} verdicts and first reasons equal; datatrove's: "
        + ", ".join(f"{r} {n}" for r, n in reasons.most_common())
    )
    sys.exit(bool(wrong.total()) or verdicts != len(texts))


if __name__ == "__main__":
    main()
