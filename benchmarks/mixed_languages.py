"""Measures how well `language: {mixed: true}` finds the languages within a text.

    python benchmarks/mixed_languages.py FOLDER

The folder has a file `XX.txt` for each language, a sentence a line (lingua-py's test data has 75 languages). Texts are drawn: two or
three languages, two to eight sentences of each, as paragraphs, as one paragraph, as lines in any order, and as one paragraph in any
order. A text is right if no language's share of the characters is more than five points off. Languages that the model does not know are
left out; those that it hardly knows (it finds a text of six sentences in less than half of the cases) are named, and the figures are
given with and without them. Half of the languages chose the constants (`--half tuned`), the others judge them (`--half judged`).
"""

import argparse
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from corpusmill.filters.language import Language, LanguageConfig
from corpusmill.filters.step import DocumentBatch

FORMS = {"paragraphs": ("\n\n", False), "one paragraph": (" ", False), "lines in any order": ("\n", True), "any order": (" ", True)}


def drawn(draw: random.Random, sentences: dict[str, list[str]], count: int, form: str) -> tuple[str, dict[str, float]]:
    """Returns a text and the share of each of its languages."""
    between, mixed = FORMS[form]
    blocks = {name: draw.choices(sentences[name], k=draw.randint(2, 8)) for name in draw.sample(sorted(sentences), count)}
    sizes = {name: sum(len("".join(text.split())) for text in block) for name, block in blocks.items()}
    pieces = [" ".join(block) for block in blocks.values()]
    if mixed:
        pieces = [text for block in blocks.values() for text in block]
        draw.shuffle(pieces)
    return between.join(pieces), {name: size / sum(sizes.values()) for name, size in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=["tuned", "judged", "both"], default="both")
    parser.add_argument("--model", help="another fastText model")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    step = Language(LanguageConfig(mixed=True, model=given.model))
    step.setup()
    draw = random.Random(given.seed)
    sentences = {path.stem.replace("nb", "no"): path.read_text().splitlines() for path in sorted(given.folder.glob("*.txt"))}
    sentences = {name: [line for line in lines if line.strip()] for name, lines in sentences.items() if name in set(step._names)}
    halves = {"tuned": sorted(sentences)[::2], "judged": sorted(sentences)[1::2], "both": sorted(sentences)}
    sentences = {name: sentences[name] for name in halves[given.half]}

    def measured(texts: list[str]) -> list[dict[str, float]]:
        text = pa.array(texts, pa.large_string())
        columns = step.measure(DocumentBatch(pa.table({"text": text}), text, "words")).columns
        return [dict(zip(*row)) for row in zip(columns["language_parts"], columns["language_part_shares"])]

    weak = []
    for name, lines in sentences.items():
        alone = measured([" ".join(draw.choices(lines, k=6)) for _ in range(50)])
        if np.mean([found.get(name, 0) > 0.5 for found in alone]) < 0.5:
            weak.append(name)
    print(f"{len(sentences)} languages; hardly known to the model: {', '.join(weak) or 'none'}")
    print(f"{'form':20} {'languages':>9}  right, %  without those hardly known, %  MB/s")
    for form in FORMS:
        for count in (2, 3):
            made = [drawn(draw, sentences, count, form) for _ in range(given.texts)]
            started = time.process_time()
            found = measured([text for text, _ in made])
            seconds = time.process_time() - started
            right = [
                all(abs(shares.get(name, 0) - truth.get(name, 0)) <= 0.05 for name in shares | truth)
                for shares, (_, truth) in zip(found, made)
            ]
            known = [each for each, (_, truth) in zip(right, made) if not truth.keys() & set(weak)]
            size = sum(len(text.encode()) for text, _ in made) / 1e6
            print(f"{form:20} {count:9}  {100 * np.mean(right):8.1f}  {100 * np.mean(known):29.1f}  {size / seconds:4.1f}", flush=True)


if __name__ == "__main__":
    main()
