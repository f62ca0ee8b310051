"""Compares speed and finds of the step `pii`, by kind, with datatrove's PIIFormatter and the matcher of the library phonenumbers.

    python benchmarks/pii.py DOCUMENTS.jsonl [MORE.parquet ...] [--megabytes 50] [--show KIND]

Speeds are CPU times on one core, the best of some repetitions. `--show phone` lists every find of a kind with the text around it, for
judgement by eye. Last come random digit strings in a sentence, none of which is personal data: prints the share that is found.
"""

import argparse
import random
from pathlib import Path

import pyarrow as pa
from datatrove.pipeline.formatters.pii import PIIFormatter
from phonenumbers import Leniency, PhoneNumberMatcher

from corpusmill.filters.pii import KINDS, Pii, PiiConfig
from corpusmill.filters.pii_scan import TextColumn, without_overlaps
from corpusmill.filters.step import DocumentBatch
from filters import read_texts, speed, up_to

BATCH = 1000  # documents
MATCHER_MEGABYTES = 2
RANDOM_NUMBERS = 50_000
AROUND = 40  # bytes


def batches(texts: list[str]) -> list[DocumentBatch]:
    column = pa.array(texts, pa.large_string())
    return [DocumentBatch(pa.table({}), column.slice(start, BATCH), "words") for start in range(0, len(texts), BATCH)]


def totals(step: Pii, parts: list[DocumentBatch]) -> dict[str, tuple[int, int]]:
    """Returns finds, and documents with finds, by column."""
    columns = [step.measure(part).columns for part in parts]
    return {
        kind.column: (sum(int(each[kind.column].sum()) for each in columns), sum(int((each[kind.column] > 0).sum()) for each in columns))
        for kind in KINDS
    }


def speeds(texts: list[str]) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    parts = batches(texts)
    step = Pii(PiiConfig())
    print(f"{len(texts):,} documents, {megabytes:.1f} MB\n\n{'':26} {'MB/s':>7} {'finds':>7} {'documents':>10}")
    found = totals(step, parts)
    for kind in KINDS:
        alone = speed(lambda kind=kind: [kind.find(TextColumn(part.text)) for part in parts], megabytes)
        print(f"{kind.column:26} {alone:7.1f} {found[kind.column][0]:7,} {found[kind.column][1]:10,}")
    print(f"{'all, with replacement':26} {speed(lambda: [step.measure(part) for part in parts], megabytes):7.1f}")
    formatter = PIIFormatter()
    print(f"{'datatrove: email and IPv4':26} {speed(lambda: [formatter.format(text) for text in texts], megabytes):7.1f}")
    some = up_to(texts, MATCHER_MEGABYTES)
    size = sum(len(text.encode()) for text in some) / 1e6
    print(f"{'phonenumbers: +1 ...':26} {speed(lambda: [list(PhoneNumberMatcher(t, None, Leniency.VALID)) for t in some], size):7.1f}")


def show(texts: list[str], name: str) -> None:
    """Prints every find of a kind once, between brackets."""
    column = TextColumn(pa.array(texts, pa.large_string()))
    found = without_overlaps([kind.find(column) for kind in KINDS])
    lines = {}
    (spans,) = (spans for kind, spans in zip(KINDS, found) if kind.name == name)
    for (start, end), document in zip(spans.tolist(), column.documents_of(spans).tolist()):
        first, last = max(int(column.offsets[document]), start - AROUND), min(int(column.offsets[document + 1]), end + AROUND)
        pieces = [column.data[a:b].tobytes().decode(errors="ignore") for a, b in ((first, start), (start, end), (end, last))]
        lines[" ".join("{}[[{}]]{}".format(*pieces).split())] = None
    print("", *lines, sep="\n")


def random_numbers() -> None:
    generator = random.Random(4)
    step = Pii(PiiConfig())
    print(f"\n{RANDOM_NUMBERS:,} random digit strings of each length, in a sentence: found as")
    for length in range(8, 20):
        texts = [f"The number is {generator.randrange(10 ** (length - 1), 10**length)} here." for _ in range(RANDOM_NUMBERS)]
        found = {name: count for name, (count, _) in totals(step, batches(texts)).items() if count}
        print(f"{length:4} digits:", ", ".join(f"{name} {count / RANDOM_NUMBERS:.3%}" for name, count in found.items()) or "nothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", type=Path, help="JSONL or Parquet files with a column text")
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--show", choices=[kind.name for kind in KINDS])
    arguments = parser.parse_args()
    texts = [text for text in read_texts(arguments.documents) if text]
    if arguments.show:
        show(texts, arguments.show)
        return
    speeds(up_to(texts, arguments.megabytes))
    random_numbers()


if __name__ == "__main__":
    main()
