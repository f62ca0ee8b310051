"""How many planted test items are found, how often something is found where nothing was planted, and how fast.

    python benchmarks/decontamination.py docs/*.parquet --sets gsm8k_test.jsonl lambada_test.jsonl HumanEval.jsonl.gz

Each chosen text of each set (GSM8K: questions, LAMBADA: passages, HumanEval: prompts; `--all-fields`: every text of 13 words or more) is
planted at a random place of a real document of its own, once for every edit:

* verbatim, case (upper, lower or title), punctuation (every mark a space), deleted (every mark deleted, so that words may grow
  together), spaces (wrapped anew);
* words: one in ten, drawn at random, is replaced by a word of the documents;
* all: case, punctuation and words.

In the same run and on the same documents, any shared n-gram is counted as found, as GPT-3 (13 words; Brown et al. 2020, appendix C) and
many since do (8 to 13): `\\w+` words in lower case. Seconds are of processor time in one thread.
"""

import argparse
import random
import re
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.dedup.contamination.config import ContaminationConfig
from corpusmill.dedup.contamination.files import set_files
from corpusmill.dedup.contamination.find import Finder
from corpusmill.dedup.contamination.index import build_index
from corpusmill.dedup.contamination.passages import read_passages
from corpusmill.dedup.contamination.readers import reader
from corpusmill.dedup.contamination.windows import DOCUMENT, PASSAGE
from corpusmill.pipeline.ingest.item_rows import read_set

WORD = re.compile(r"\w+")
MARK = re.compile(r"[^\w\s]")
#: What is planted of an item: its first field that is one of these.
PLANTED = ("question", "text", "prompt", "sentence_good", "problem", "ctx")


@dataclass(frozen=True)
class Planted:
    """A text of an item in a document of its own."""

    set: str
    items: frozenset[tuple[str, int]]  # more than one where items of a set have the same words
    edit: str
    document: str


def read_texts(paths: list[str]) -> list[str]:
    """The texts of Parquet files with a column `text`; of other files, their paragraphs of 200 characters or more."""
    texts: list[str] = []
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        else:
            texts += [line for line in path.read_text().split("\n") if len(line) >= 200]
    return texts


def items_of(sets: list[str], all_fields: bool) -> dict[str, list[tuple[int, str]]]:
    """Of each set, `(item, text)` of what may be planted."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    config = ContaminationConfig(sets=sets)
    for file in set_files(config.set_configs()):
        number = 0
        for place, rows in read_set(file.ref.path):
            texts_of = reader(place, rows, None)
            for row in rows:
                texts = texts_of(row)
                chosen = [t for _, t in texts if len(WORD.findall(t)) >= 13] if all_fields else [t for f, t in texts if f in PLANTED][:1]
                found[file.name] += [(number, text) for text in chosen]
                number += 1
    return found


def edits(vocabulary: list[str]) -> dict[str, Callable[[str, random.Random], str]]:
    def case(text: str, draw: random.Random) -> str:
        return draw.choice([str.upper, str.lower, str.title])(text)

    def words(text: str, draw: random.Random) -> str:
        places = [match.span() for match in WORD.finditer(text)]
        for start, end in sorted(draw.sample(places, -(-len(places) // 10)), reverse=True):
            text = text[:start] + draw.choice(vocabulary) + text[end:]
        return text

    return {
        "verbatim": lambda text, draw: text,
        "case": case,
        "punctuation": lambda text, draw: MARK.sub(" ", text),
        "deleted": lambda text, draw: MARK.sub("", text),
        "spaces": lambda text, draw: "\n".join(textwrap.wrap(" ".join(text.split()), draw.randint(20, 100))),
        "words": words,
        "all": lambda text, draw: words(MARK.sub(" ", case(text, draw)), draw),
    }


def plant(texts: list[str], items: dict[str, list[tuple[int, str]]], count: int, seed: int) -> list[Planted]:
    """Every edit of up to `count` texts of each set, each at a space of a document (an end where there is none)."""
    vocabulary = sorted({word for text in texts[:2000] for word in WORD.findall(text) if word.isalpha()})
    changes = edits(vocabulary)
    planted = []
    for name, all_of_set in items.items():
        draw = random.Random(f"{seed}:{name}")
        same: dict[tuple[str, ...], set[tuple[str, int]]] = defaultdict(set)
        for item, text in all_of_set:
            same[tuple(WORD.findall(text.lower()))].add((name, item))
        for _, text in draw.sample(all_of_set, min(count, len(all_of_set))):
            items_of_text = frozenset(same[tuple(WORD.findall(text.lower()))])
            for edit, change in changes.items():
                host = draw.choice(texts)
                places = [0, *(match.start() for match in re.finditer(r"\s", host)), len(host)]
                at = draw.choice(places)
                planted.append(Planted(name, items_of_text, edit, f"{host[:at]}\n{change(text, draw)}\n{host[at:]}"))
    return planted


class Ours:
    """The kernels that the stage runs."""

    def __init__(self, sets: list[str], **options: object):
        config = ContaminationConfig.model_validate({"sets": sets, **options})
        started = time.process_time()
        self.index = build_index(read_passages(set_files(config.set_configs())), config)
        self.built = time.process_time() - started
        self.finder = Finder.make(self.index, config)

    def find(self, texts: list[str] | pa.Array) -> list[set[tuple[str, int]]]:
        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        found: list[set[tuple[str, int]]] = [set() for _ in range(len(array))]
        for row in self.finder.find(array):
            passage = row[PASSAGE]
            found[row[DOCUMENT]].add((self.index.sets[self.index.set_of[passage]], int(self.index.number[passage])))
        return found


class AnyNgram:
    """An item is found where one n-gram of words of one of its texts stands."""

    def __init__(self, sets: list[str], ngram: int):
        self.ngram = ngram
        self.items: dict[str, set[tuple[str, int]]] = defaultdict(set)
        config = ContaminationConfig(sets=sets)
        for file in set_files(config.set_configs()):
            number = 0
            for place, rows in read_set(file.ref.path):
                texts_of = reader(place, rows, None)
                for row in rows:
                    for _, text in texts_of(row):
                        for gram in self.grams(text):
                            self.items[gram].add((file.name, number))
                    number += 1

    def grams(self, text: str) -> set[str]:
        words = WORD.findall(text.lower())
        return {" ".join(words[i : i + self.ngram]) for i in range(len(words) - self.ngram + 1)}

    def find(self, texts: list[str]) -> list[set[tuple[str, int]]]:
        return [{item for gram in self.grams(text) & self.items.keys() for item in self.items[gram]} for text in texts]


def show_recall(name: str, planted: list[Planted], found: list[set[tuple[str, int]]]) -> None:
    totals: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for one, items in zip(planted, found, strict=True):
        totals[one.set, one.edit].append(not one.items.isdisjoint(items))
    names = list(dict.fromkeys(one.edit for one in planted))
    sets = list(dict.fromkeys(one.set for one in planted))
    if len(sets) > 12:  # all as one
        sets = ["all sets"]
        for (_, edit), values in list(totals.items()):
            totals["all sets", edit] += values
    print(f"\n{name}: recall, %\n{'':26}" + "".join(f"{edit:>12}" for edit in names))
    for set_ in sets:
        print(f"{set_[:18]:18} {len(totals[set_, names[0]]):7,}" + "".join(f"{100 * np.mean(totals[set_, edit]):12.2f}" for edit in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="documents: Parquet with a column `text`, or plain text")
    parser.add_argument("--sets", nargs="+", required=True, help="evaluation sets")
    parser.add_argument("--items", type=int, default=1000, help="how many texts of each set are planted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all-fields", action="store_true", help="plant every text of an item that has 13 words or more")
    parser.add_argument("--ngrams", type=int, nargs="*", default=[8, 13], help="any shared n-gram of so many words, to compare")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of dedup.contamination")
    parser.add_argument("--show", type=int, default=10, help="how many hits on documents without planted items are shown")
    args = parser.parse_args()

    texts = read_texts(args.files)
    array = pa.array(texts, pa.large_string())
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    planted = plant(texts, items_of(args.sets, args.all_fields), args.items, args.seed)
    print(f"{len(texts):,} documents, {megabytes:,.1f} MB; {len(planted):,} planted")

    ours = Ours(args.sets, **dict(option.split("=", 1) for option in args.set))
    print(f"index: {ours.built:.1f} s, {len(ours.index.kind):,} texts, {len(ours.index.starts) - 1:,} n-grams")
    ours.find(array[:3])
    seconds = []
    for _ in range(3):
        started = time.process_time()
        hits = ours.find(array)
        seconds.append(time.process_time() - started)
    show_recall("corpusmill", planted, ours.find([one.document for one in planted]))
    print(f"documents with a hit and nothing planted: {sum(map(bool, hits)):,}; {megabytes / min(seconds):,.0f} MB/s")
    for number in [n for n, found in enumerate(hits) if found][: args.show]:
        print(f"  document {number}: {sorted(hits[number])[:3]}")

    for ngram in args.ngrams:
        peer = AnyNgram(args.sets, ngram)
        started = time.process_time()
        hits = peer.find(texts)
        elapsed = time.process_time() - started
        show_recall(f"any {ngram}-gram", planted, peer.find([one.document for one in planted]))
        print(f"documents with a hit and nothing planted: {sum(map(bool, hits)):,}; {megabytes / elapsed:,.1f} MB/s (Python sets)")


if __name__ == "__main__":
    main()
