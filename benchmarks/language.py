"""Compares the step `language` with datatrove's LanguageFilter: one process, one core, the same model and documents.

    python benchmarks/language.py DOCUMENTS.jsonl [MORE.parquet ...] [--megabytes 20] [--lid FOLDER]

Prints speeds in CPU time: for `first time` with an empty token cache, as in a new worker, else the best of some repetitions. Prints how
often labels and verdicts agree. With a folder of `CODE.txt` files, one sentence a line, prints the number of passages whose language is
recognised.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from datatrove_filters import language_filter

from corpusmill.filters.language import Language, LanguageConfig
from corpusmill.filters.language_codes import LID_176, labels_for
from corpusmill.filters.step import DocumentBatch
from filters import read_texts, speed, up_to

BATCH = 1000  # documents
LINES = (1, 3, 20)  # sentences in a passage


def step(**options: Any) -> Language:
    made = Language(LanguageConfig(**options))
    made.setup()
    return made


def measure(language: Language, texts: pa.Array) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("language", "language_score")}
    for start in range(0, len(texts), BATCH):
        measured = language.measure(DocumentBatch(pa.table({}), texts.slice(start, BATCH), "words"))
        for name, found in columns.items():
            found += measured.columns[name].tolist()
    return columns


def compare(texts: list[str]) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {megabytes:.1f} MB, lid.176.ftz\n")
    column = pa.array(texts, pa.large_string())
    reference = language_filter()
    documents = [Document(text=text, id="") for text in texts]
    kept = [bool(reference.filter(document)) for document in documents]
    theirs = speed(lambda: [reference.filter(document) for document in documents], megabytes)
    print(f"{'':34} {'MB/s':>7} {'ratio':>6}   same label  same verdict at {reference.language_threshold}")
    print(f"{'datatrove':34} {theirs:7.1f} {1:6.2f}")
    step(min_letters=0).measure(DocumentBatch(pa.table({}), column[:1], "words"))  # compiles the kernels
    for name, options in {"": {}, "top: 5": {"top": 5}, "match: any": {"match": "any", "keep": ["en", "de", "fr"]}}.items():
        ours = step(min_letters=0, **options)
        began = time.process_time()
        found = measure(ours, column)
        first = megabytes / (time.process_time() - began)
        labels = sum(document.metadata["language"] == label for document, label in zip(documents, found["language"]))
        verdicts = sum((score > reference.language_threshold) == verdict for score, verdict in zip(found["language_score"], kept))
        agree = f"   {labels / len(texts):10.2%}  {verdicts / len(texts):10.2%}"
        print(f"{f'corpusmill {name}'.rstrip() + ', first time':34} {first:7.1f} {first / theirs:6.2f}{agree}")
        mine = speed(lambda ours=ours: measure(ours, column), megabytes)
        print(f"{f'corpusmill {name}':34} {mine:7.1f} {mine / theirs:6.2f}")


def accuracy(folder: Path) -> None:
    """Prints the recognised passages of languages that the model has. `und` counts as wrong."""
    language = step()
    print()
    for lines in LINES:
        passages, truth = [], []
        for path in sorted(folder.glob("*.txt")):
            try:
                (label,) = labels_for([path.stem], LID_176)
            except ValueError:
                continue
            sentences = path.read_text().splitlines()
            parts = [" ".join(sentences[start : start + lines]) for start in range(0, len(sentences) - lines + 1, lines)]
            passages += parts
            truth += [label] * len(parts)
        found = measure(language, pa.array(passages, pa.large_string()))["language"]
        right = [label == expected for label, expected in zip(found, truth)]
        share = {label: sum(ok for ok, expected in zip(right, truth) if expected == label) / truth.count(label) for label in set(truth)}
        worst = ", ".join(f"{label} {share[label]:.0%}" for label in sorted(share, key=lambda name: (share[name], name))[:6])
        print(
            f"{lines:3} sentences: {sum(right) / len(right):.1%} of {len(right):,} passages right, "
            f"mean of {len(share)} languages {sum(share.values()) / len(share):.1%}; worst: {worst}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", type=Path, help="JSONL or Parquet files with a column text")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--lid", type=Path, help="folder of CODE.txt files")
    arguments = parser.parse_args()
    compare(up_to([text for text in read_texts(arguments.documents) if text], arguments.megabytes))
    if arguments.lid:
        accuracy(arguments.lid)


if __name__ == "__main__":
    main()
