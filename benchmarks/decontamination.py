"""Measures decontamination: the share of planted test items found, by set and length; false finds; speed.

    python benchmarks/decontamination.py docs/*.parquet --sets gsm8k_test.jsonl nq_open/*.arrow HumanEval.jsonl.gz --lines th.txt ja.txt

The program makes two more sets: `tables` (an instruction that all items share, a table of names and numbers, a question) and `brackets` (a
sequence of brackets, after an instruction that all items share, or alone). With `--lines`, each line of a text file is an item of the set
`languages`. One text of each chosen item is planted at a random place of a real document of its own, once for every edit:

* verbatim, case (upper, lower or title), spaces (new line breaks), marks (every mark a space), deleted (every mark deleted, so that words
  may be joined);
* words: one word in ten, drawn at random, is replaced by a word of the documents;
* all: case, marks and words;
* inserted: twelve words of a document between two sentences, or in the middle of the only one;
* numbers: each number is replaced by another of as many digits;
* digits: each digit is one of another script.

With `--stems FILE`, the lines of a text file are questions that any quiz may have. They are a set of their own, each with four options of
random words, and are planted alone (none should be found) and with their options.

Not planted are texts of fewer than 8 words (except brackets), texts whose words occur in more than 20 items of their set, and edits of
marks where items differ by their marks alone.

In the same run and on the same documents, a peer reports an item for any shared n-gram, as GPT-3 (13 words; Brown et al. 2020, appendix C)
and many since do (8 to 13): `\\w+` words in lower case. Seconds are processor time in one thread.
"""

import argparse
import json
import random
import re
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import regex

from corpusmill.dedup.config import ContaminationConfig
from corpusmill.dedup.contamination.find import DOCUMENT, PASSAGE, Finder, build_index
from corpusmill.dedup.contamination.sets import read_passages, reader, set_files
from corpusmill.pipeline.formats.evaluation_sets import read_set
from corpusmill.text.words import UNSPACED

#: A word of an item for counts and edits; a character of a script without spaces is a word.
WORD = regex.compile(rf"(?V1)[[{UNSPACED}]&&\w--\p{{M}}]\p{{M}}*|[\w--_--[{UNSPACED}]]+")
MARK = regex.compile(r"[^\w\s\p{M}]")
#: Fields of an item; the first one present is planted.
PLANTED = ("question", "goal", "text", "prompt", "sentence_good", "problem", "ctx", "input")
EDITS = ("verbatim", "case", "spaces", "marks", "deleted", "words", "all", "inserted", "numbers", "digits")
#: The zeros of other scripts: Arabic, Persian, Devanagari, Bengali, Thai, Khmer, full-width.
ZEROS = (0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0x17E0, 0xFF10)
#: Lengths in words: each range ends before the next one.
LENGTHS = (0, 8, 13, 15, 21, 51)
COMMON = 20


@dataclass(frozen=True)
class Planted:
    """A text of an item, planted in a document."""

    set: str
    items: frozenset[tuple[str, int]]  # several where items of a set have the same text
    words: int
    edit: str
    document: str


def read_texts(paths: list[str]) -> list[str]:
    """Reads the texts: column `text` of Parquet files, key `text` of JSONL; of other files, paragraphs of 200 characters or more."""
    texts: list[str] = []
    for path in map(Path, paths):
        if path.suffix == ".parquet":
            texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
        elif path.suffix == ".jsonl":
            texts += [json.loads(line)["text"] for line in path.read_text().splitlines()]
        else:
            texts += [line for line in path.read_text().split("\n") if len(line) >= 200]
    return texts


def made_sets(folder: Path, lines: list[str], seed: int) -> list[str]:
    """Writes the sets `tables` and `brackets` to a folder; returns their paths."""
    sets = {"tables": list(tables(random.Random(f"{seed}:tables"))), "brackets": list(brackets(random.Random(f"{seed}:brackets")))}
    if lines:
        sets["languages"] = [line for path in lines for line in Path(path).read_text().splitlines() if line.strip()]
    for name, texts in sets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [str(folder / f"{name}.jsonl") for name in sets]


def tables(draw: random.Random) -> Iterator[str]:
    """Makes items like BIG-Bench's `penguins_in_a_table`."""
    names = ["Louis", "Bernard", "Vincent", "Gwen", "James", "Anna", "Robert", "Donna", "Fred", "Jennifer", "Michael", "Alfred", "Ema"]
    columns = ["age", "height (cm)", "weight (kg)", "score", "points", "year", "price", "length (m)"]
    intro = "Here is a table where the first line is a header and each subsequent line is an animal:"
    for _ in range(500):
        chosen = draw.sample(columns, 3)
        rows = [[name, *(str(draw.randint(1, 200)) for _ in chosen)] for name in draw.sample(names, draw.randint(3, 8))]
        separator = draw.choice([", ", " | ", "\t"])
        table = "\n".join(separator.join(row) for row in [["name", *chosen], *rows])
        yield f"{intro}\n{table}\nWhich animal has the largest {draw.choice(chosen)} but {draw.choice(rows)[0]}?"


def brackets(draw: random.Random) -> Iterator[str]:
    """Makes items like BIG-Bench's `dyck_languages`, with its instruction and without."""
    intro = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: "
    for number in range(500):
        sequence: list[str] = []
        opened: list[str] = []
        for _ in range(draw.randint(12, 40)):
            if opened and draw.random() < 0.45:
                sequence.append(opened.pop())
            else:
                begin, end = draw.choice([("(", ")"), ("[", "]"), ("{", "}"), ("<", ">")])
                sequence.append(begin)
                opened.append(end)
        yield intro * (number % 2) + " ".join(sequence)


def items_of(sets: list[str], all_fields: bool) -> dict[str, list[tuple[int, str]]]:
    """Returns for each set the pairs `(item, text)` that may be planted."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    numbers: dict[str, int] = defaultdict(int)
    config = ContaminationConfig(sets=[*sets])
    for file in set_files(config.set_configs()):
        for place, rows in read_set(file.ref.path):
            texts_of = reader(place, rows, None)
            for row in rows:
                texts = texts_of(row)
                chosen = [t for _, t in texts] if all_fields else [t for f, t in texts if f in PLANTED][:1]
                found[file.name] += [(numbers[file.name], text) for text in chosen]
                numbers[file.name] += 1
    return found


def edits(vocabulary: list[str], texts: list[str]) -> dict[str, Callable[[str, random.Random], str]]:
    def case(text: str, draw: random.Random) -> str:
        return draw.choice([str.upper, str.lower, str.title])(text)

    def words(text: str, draw: random.Random) -> str:
        places = [match.span() for match in WORD.finditer(text)]
        for start, end in sorted(draw.sample(places, -(-len(places) // 10)), reverse=True):
            text = f"{text[:start]} {draw.choice(vocabulary)} {text[end:]}"
        return text

    def inserted(text: str, draw: random.Random) -> str:
        parts = re.split(r"(?<=[.!?])\s+", text)
        words = text.split()
        if len(parts) == 1:
            parts = [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]
        others = []
        for _ in parts[1:]:
            other = draw.choice(texts)[:5000].split()
            others.append(" ".join(other[draw.randrange(max(len(other) - 12, 1)) :][:12]))
        return "\n\n".join(part for pair in zip_longest(parts, others, fillvalue="") for part in pair)

    def other_number(match: re.Match[str], draw: random.Random) -> str:
        size = len(match[0])
        return str((int(match[0]) + draw.randrange(1, 10**size)) % 10**size).zfill(size)

    def digits(text: str, draw: random.Random) -> str:
        zero = draw.choice(ZEROS)
        return re.sub("[0-9]", lambda match: chr(zero + int(match[0])), text)

    return {
        "inserted": inserted,
        "numbers": lambda text, draw: re.sub("[0-9]+", lambda match: other_number(match, draw), text),
        "digits": digits,
        "verbatim": lambda text, draw: text,
        "case": case,
        "spaces": lambda text, draw: "\n".join(textwrap.wrap(" ".join(text.split()), draw.randint(20, 100))),
        "marks": lambda text, draw: MARK.sub(" ", text),
        "deleted": lambda text, draw: MARK.sub("", text),
        "words": words,
        "all": lambda text, draw: words(MARK.sub(" ", case(text, draw)), draw),
    }


def plant(texts: list[str], items: dict[str, list[tuple[int, str]]], count: int, seed: int) -> list[Planted]:
    """Plants every edit of up to `count` texts of each set, each at a space in the first 5,000 characters of a document."""
    vocabulary = sorted({word for text in texts[:2000] for word in WORD.findall(text) if word.isalpha()})
    changes = edits(vocabulary, [text for text in texts if text.isascii()])
    planted = []
    for name, all_of_set in items.items():
        draw = random.Random(f"{seed}:{name}")
        same: dict[tuple[str, ...], set[tuple[str, int]]] = defaultdict(set)
        for item, text in all_of_set:
            for key in {words_of(text), marks_of(text)}:
                same[key].add((name, item))
        for _, text in draw.sample(all_of_set, min(count, len(all_of_set))):
            words = words_of(text)
            by_marks = len(words) < 8 or len(same[words]) > COMMON
            items_of_text = same[marks_of(text) if by_marks else words]
            if by_marks and (name != "brackets" or len(items_of_text) > COMMON):
                continue
            for edit, change in changes.items():
                if by_marks and edit in ("marks", "deleted", "all", "inserted", "numbers", "digits"):
                    continue
                if (edit == "words" and not words) or (edit in ("numbers", "digits") and not re.search("[0-9]", text)):
                    continue
                host = draw.choice(texts)[:5000]
                at = draw.choice([0, *(match.start() for match in re.finditer(r"\s", host)), len(host)])
                document = f"{host[:at]}\n{change(text, draw)}\n{host[at:]}"
                planted.append(Planted(name, frozenset(items_of_text), len(words), edit, document))
    return planted


def words_of(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))


def marks_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+|[^\w\s]", text.casefold()))


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

    def passage(self, text: str) -> str:
        """Returns the first passage found in a document, at most 200 characters."""
        start, end = self.finder.spans(text, self.finder.find(pa.array([text], pa.large_string()))[:1])[0]
        return text[start:end][:200]


class AnyNgram:
    """Finds an item where a document has any n-gram of words of one of the item's texts."""

    def __init__(self, sets: list[str], ngram: int):
        self.ngram = ngram
        self.items: dict[str, set[tuple[str, int]]] = defaultdict(set)
        config = ContaminationConfig(sets=[*sets])
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
    """Prints recall by set and length, then by length alone, with the numbers of planted and found texts."""
    totals: dict[tuple[str, int, str], list[bool]] = defaultdict(list)
    sets = list(dict.fromkeys(one.set for one in planted))
    for one, items in zip(planted, found, strict=True):
        bucket = max(n for n, least in enumerate(LENGTHS) if one.words >= least)
        for set_ in (one.set, "all sets"):
            totals[set_, bucket, one.edit].append(not one.items.isdisjoint(items))
    names = [f"{a} to {b - 1}" for a, b in pairwise(LENGTHS)] + [f"{LENGTHS[-1]} and more"]
    print(f"\n{name}: recall, %\n{'set':22}{'words':>12}{'texts':>7}" + "".join(f"{edit:>10}" for edit in EDITS))
    for set_ in ([] if len(sets) > 20 else sets) + ["all sets"]:
        for bucket, length in enumerate(names):
            if (set_, bucket, "verbatim") in totals:
                values = [totals.get((set_, bucket, edit), []) for edit in EDITS]
                print(
                    f"{set_[-22:]:22}{length:>12}{len(values[0]):7,}"
                    + "".join(f"{100 * np.mean(v):10.2f}" if v else f"{'-':>10}" for v in values)
                )


def show_stems(path: str, texts: list[str], seed: int, folder: Path) -> None:
    """Prints how many questions are found alone and with their options."""
    draw = random.Random(f"{seed}:stems")
    vocabulary = sorted({word for text in texts[:2000] for word in WORD.findall(text) if word.isalpha()})
    rows = [{"question": line, "choices": [" ".join(draw.choices(vocabulary, k=draw.randint(1, 5))) for _ in range(4)]}
            for line in Path(path).read_text().splitlines() if len(words_of(line)) >= 7]  # fmt: skip
    (folder / "stems.json").write_text(json.dumps(rows))
    hosts = [draw.choice(texts)[:5000] for _ in rows]
    both = [
        [host + "\n" + row["question"], "\n".join([host, row["question"], *row["choices"]])] for host, row in zip(hosts, rows, strict=True)
    ]
    found = [map(bool, Ours([str(folder / "stems.json")]).find([pair[n] for pair in both])) for n in (0, 1)]
    print(f"\n{len(rows)} questions of {path}: {sum(found[0])} found alone, {sum(found[1])} with their options")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="documents: Parquet with a column `text`, or plain text")
    parser.add_argument("--sets", nargs="+", required=True, help="evaluation sets")
    parser.add_argument("--lines", nargs="*", default=[], help="text files whose lines are the items of one more set")
    parser.add_argument("--stems", help="a text file whose lines are questions that could stand in any quiz")
    parser.add_argument("--items", type=int, default=1000, help="how many texts of each set are planted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--all-fields", action="store_true", help="plant every text of an item")
    parser.add_argument("--ngrams", type=int, nargs="*", default=[8, 13], help="any shared n-gram of so many words, to compare")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of dedup.contamination")
    parser.add_argument("--show", type=int, default=10, help="how many hits on documents without planted items are shown")
    args = parser.parse_args()

    texts = read_texts(args.files)
    array = pa.array(texts, pa.large_string())
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    folder = tempfile.TemporaryDirectory()
    args.sets += made_sets(Path(folder.name), args.lines, args.seed)
    planted = plant(texts, items_of(args.sets, args.all_fields), args.items, args.seed)
    print(f"{len(texts):,} documents, {megabytes:,.1f} MB; {len(planted):,} planted")

    ours = Ours(args.sets, **dict(option.split("=", 1) for option in args.set))
    print(
        f"index: {ours.built:.1f} s, {len(ours.index.kind):,} texts, {len(ours.index.starts) - 1:,} n-grams, "
        f"{len(ours.index.to_bytes()) / 1e6:.0f} MB"
    )
    ours.find(array[:3])
    seconds = []
    for _ in range(3):
        started = time.process_time()
        hits = ours.find(array)
        seconds.append(time.process_time() - started)
    show_recall("corpusmill", planted, ours.find([one.document for one in planted]))
    print(f"documents with a hit and nothing planted: {sum(map(bool, hits)):,}; {megabytes / min(seconds):,.0f} MB/s")
    for number in [n for n, found in enumerate(hits) if found][: args.show]:
        print(f"  document {number}: {sorted(hits[number])[:3]} {ours.passage(texts[number])!r}")

    if args.stems:
        show_stems(args.stems, texts, args.seed, Path(folder.name))
    for ngram in args.ngrams:
        peer = AnyNgram(args.sets, ngram)
        started = time.process_time()
        hits = peer.find(texts)
        elapsed = time.process_time() - started
        show_recall(f"any {ngram}-gram", planted, peer.find([one.document for one in planted]))
        print(f"documents with a hit and nothing planted: {sum(map(bool, hits)):,}; {megabytes / elapsed:,.1f} MB/s (Python sets)")


if __name__ == "__main__":
    main()
