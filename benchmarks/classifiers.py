"""Measures the classifiers on data that they have not seen.

    python benchmarks/classifiers.py --run RUN             # real data at ../shared/data (--data), packages from the registries

Prints, with 95 % bootstrap intervals:

* toxicity by recipes/classifiers/toxicity.yaml. It is trained on nine tenths of Davidson (by a hash of the text), TweetEval's training
  parts and the word lists, with contrasts and without. It is tested on Davidson's other tenth, TweetEval's validation parts,
  surge_profanity against seeded phrases of WikiText, and functional cases (functional_toxicity.py), and for false positives on clean pages;
* the same with each source left out in turn: F1 on the omitted source, next to plain fastText (its
  own defaults, positive from .5) trained on the same texts;
* the label `sexual`, trained on one half of surge_profanity's categories and tested on the other half;
* the built-in `quality` classifier on DCLM's human labels (quality_nested.py has the figures that chose nothing).
"""

import argparse
import csv
import gzip
import json
import random
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from functional_toxicity import HARD, TEMPLATES, cases, slurs

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.corpora import sure_and_unsure
from corpusmill.filters.classifier.evaluate import evaluate
from corpusmill.filters.classifier.examples import gather_examples
from corpusmill.filters.classifier.options import builtin
from corpusmill.filters.classifier.score import Scorer
from corpusmill.filters.classifier.spec import TrainingSpec, read_spec
from corpusmill.filters.classifier.train import train_classifier

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "toxicity"  # recipes/classifiers/toxicity.yaml
SEED = 1
PARTS = ("toxicity", "labels", "unseen", "sexual", "quality")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Texts with human answers to one question (1 yes, 0 no)."""

    name: str
    texts: list[str]
    answers: list[int]
    without: str | None = None  # the recipe's source that the texts belong to


# ---- data ------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def prepare_data(data: Path, folder: Path) -> list[Judged]:
    """Writes the recipe's training files to `folder`; returns the test sets for toxicity."""
    toxicity = data / "toxicity"
    davidson = rows_of(toxicity / "davidson_train.jsonl.gz")
    held_out = [xxhash.xxh3_64_intdigest(row["text"], SEED) % 10 == 0 for row in davidson]
    with gzip.open(folder / "davidson_train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row, out in zip(davidson, held_out) if not out)
    for name in ("tweeteval_offensive_train.jsonl.gz", "tweeteval_hate_train.jsonl.gz"):
        (folder / name).symlink_to(toxicity / name)
    judged = [row for row, out in zip(davidson, held_out) if out]
    olid, hate = (rows_of(toxicity / f"tweeteval_{name}_val.jsonl.gz") for name in ("offensive", "hate"))
    words = [row["text"] for row in surge(data)]
    phrases = ordinary_phrases(data, [len(word.split()) for word in words])
    listed = set().union(*sure_and_unsure())
    unlisted = [pair for pair in zip(words, phrases) if pair[0].lower() not in listed]
    return [
        Judged("Davidson, held out", [row["text"] for row in judged], [int(row["class"] != "neither") for row in judged], "davidson"),
        Judged("OLID, validation", [row["text"] for row in olid], [int(row["label"]) for row in olid], "olid"),
        Judged("HatEval, validation", [row["text"] for row in hate], [int(row["label"]) for row in hate], "hateval"),
        Judged("surge_profanity / WikiText", words + phrases, [1] * len(words) + [0] * len(phrases)),
        Judged("  those on none of our lists", [text for both in unlisted for text in both], [1, 0] * len(unlisted)),
    ]


def surge(data: Path) -> list[dict[str, str]]:
    with open(data / "toxicity/surge_profanity/profanity_en.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ordinary_phrases(data: Path, lengths: Sequence[int]) -> list[str]:
    """Returns phrases of WikiText-2's validation part, one for each number of words in `lengths`, from seeded places."""
    words = re.findall(r"[A-Za-z]{3,}", (data / "text/wikitext2_valid.txt").read_text("utf-8"))
    draw = random.Random(SEED)
    places = [draw.randrange(len(words) - length) for length in lengths]
    return [" ".join(words[place : place + length]) for place, length in zip(places, lengths)]


# ---- classifiers -----------------------------------------------------------------------------------


def recipe(folder: Path, without: str | None = None, labels: Sequence[str] | None = None) -> TrainingSpec:
    """Returns the recipe over all or some of the files in `folder`. Texts are scored whole, because the test texts are short."""
    spec = read_spec([RECIPE])
    sources = []
    for source in spec.sources:
        files = tuple(name if "://" in name else str(folder / name) for name in source.files)
        if source.name != without and (labels is None or set(labels) & set(source.labels())):
            sources.append(source.model_copy(update={"files": files}))
    return spec.model_copy(update={"window": None, "sources": tuple(sources), "labels": tuple(labels or spec.labels)})


def trained(spec: TrainingSpec, folder: Path) -> tuple[Path, float]:
    started = time.perf_counter()
    train_classifier(spec, folder)
    return folder, time.perf_counter() - started


def scores(folder: Path, texts: list[str], label: str) -> tuple[Floats, float]:
    """Returns a label's scores (n,), and its threshold."""
    classifier = read_classifier(folder)
    place = [head.label for head in classifier.heads].index(label)
    return Scorer(folder, classifier).score(pa.array(texts, pa.large_string()))[place], classifier.heads[place].threshold


class PlainFastText:
    """fastText as its own documentation trains it: lower-cased words, default arguments, positive from .5 on."""

    def __init__(self, spec: TrainingSpec, label: str):
        table = gather_examples(spec.sources, [label]).table
        lines = [f"__label__{answer} {self.line(text)}" for text, answer in zip(table["text"].to_pylist(), table[label].to_pylist())]
        random.Random(SEED).shuffle(lines)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            self.model = fasttext.train_supervised(file.name, thread=1, seed=SEED, verbose=0)

    @staticmethod
    def line(text: str) -> str:
        return " ".join(text.lower().split())

    def scores(self, texts: list[str]) -> Floats:
        labels, values = self.model.predict([self.line(text) for text in texts], k=2)
        return np.array([min(1.0, dict(zip(names, shares)).get("__label__1", 0.0)) for names, shares in zip(labels, values)])


# ---- tables ----------------------------------------------------------------------------------------


def measure(name: str, score: Floats, answers: Sequence[int], threshold: float) -> str:
    found = evaluate(score, np.array(answers), [name] * len(answers), np.ones(len(answers), np.int64), threshold, SEED)
    cells = [shown(found["roc_auc"]), shown(found["average_precision"]), shown(found["at_threshold"]["f1"])]
    return f"{name:44s} {found['yes']:6,} {found['no']:6,}  {cells[0]}  {cells[1]}  {cells[2]}  {threshold:.3f}"


def shown(value: dict[str, float] | None) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f} {value['high']:.3f}]" if value else " " * 19


def head(title: str) -> None:
    print(f"\n{title}\n{'':44s}    yes     no  {'AUC':19s}  {'average precision':19s}  {'F1 at the threshold':19s}  threshold", flush=True)


def toxicity(data: Path, folder: Path, judged: list[Judged], run: str | None) -> None:
    """Prints the results of the recipe with and without contrasts: held-out parts, functional cases, clean pages."""
    for title, without in (("", None), (" without contrasts", "contrasts")):
        model, seconds = trained(recipe(folder, without, ["toxicity"]), folder / f"toxicity{without or ''}")
        head(f"Toxicity by {RECIPE}{title}, trained in {seconds:.1f} s")
        for part in judged:
            print(measure(part.name, *pair(scores(model, part.texts, "toxicity"), part)), flush=True)
        functional(data, model)
        pages(model, clean_pages(data, run))


def labels(folder: Path, judged: list[Judged]) -> None:
    """Prints the results of the recipe's other labels."""
    model, seconds = trained(recipe(folder), folder / "labels")
    head(f"{RECIPE}, four labels in {seconds:.1f} s")
    for part, label in ((judged[2], "hate"), (judged[1], "offensive"), (judged[3], "profane")):
        print(measure(f"{part.name}: {label}", *pair(scores(model, part.texts, label), part)), flush=True)


def functional(data: Path, model: Path) -> None:
    every = cases(slurs(data))
    score, threshold = scores(model, [case.text for case in every], "toxicity")
    score, toxic = np.nan_to_num(score), np.array([case.toxic for case in every])
    named = np.array([case.functionality for case in every])
    print(measure("functional cases", score, toxic.tolist(), threshold), flush=True)
    hard = np.isin(named, HARD) | (toxic == 1)
    print(measure("  toxic / what the words get wrong", score[hard], toxic[hard].tolist(), threshold))
    for name, (is_toxic, _) in TEMPLATES.items():
        mine = named == name
        print(f"    {name:26s} {mine.sum():4d} cases, yes to {(score[mine] >= threshold).mean():4.0%}{' (toxic)' if is_toxic else ''}")


def texts_of(folder: Path) -> list[str]:
    """Returns the texts of a stage's documents."""
    return [text for path in sorted(folder.glob("*.parquet")) for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]


def clean_pages(data: Path, run: str | None) -> dict[str, list[str]]:
    """Returns presumably ordinary pages: of Common Crawl, and documents that a run over manuals keeps."""
    found = {"C4": [row["text"] for row in rows_of(data / "text/c4_demo.jsonl")]}
    found["Common Crawl (DCLM)"] = [row["text"] for row in rows_of(data / "quality/dclm_human.jsonl")]
    if run:
        found["manuals"] = texts_of(Path(run) / "filter/data")
    return found


def pages(model: Path, found: dict[str, list[str]]) -> None:
    """Prints how many clean pages are positive in windows of 25 words: at its own threshold, and at one that 1 % of C4's pages reach."""
    classifier = read_classifier(model).model_copy(update={"window": 25})
    scorer, threshold = Scorer(model, classifier), classifier.heads[0].threshold
    score = {name: np.nan_to_num(scorer.score(pa.array(texts, pa.large_string()))[0]) for name, texts in found.items()}
    strict = float(np.quantile(score["C4"], 0.99, method="higher"))
    for name, of in score.items():
        yes, above = (of >= threshold).sum(), (of > strict).sum()
        print(f"    pages, {name}: {len(of)}, yes to {yes} from {threshold:.3f} on, {above} above {strict:.3f}", flush=True)


def pair(found: tuple[Floats, float], part: Judged) -> tuple[Floats, list[int], float]:
    return found[0], part.answers, found[1]


def unseen_sources(data: Path, folder: Path, judged: list[Judged]) -> None:
    head("Toxicity on a source that training, calibration and threshold have not seen; below it plain fastText on the same texts")
    for part in judged[:2]:  # no other source has texts for the recipe's `toxicity`
        spec = recipe(folder, part.without, ["toxicity"])
        model, _ = trained(spec, folder / f"without-{part.without}")
        print(measure(part.name, *pair(scores(model, part.texts, "toxicity"), part)))
        functional(data, model)
        print(measure("  plain fastText", PlainFastText(spec, "toxicity").scores(part.texts), part.answers, 0.5), flush=True)


def sexual(data: Path, folder: Path) -> None:
    """Trains `sexual` on one half of a list with categories (by hash of the canonical form), and tests it on the other half."""
    rows = surge(data)
    answers = [int(any("sexual anatomy" in row[f"category_{place}"] for place in (1, 2, 3))) for row in rows]
    learned = [xxhash.xxh3_64_intdigest(row["canonical_form_1"] or row["text"], SEED) % 2 == 0 for row in rows]
    path = folder / "categories.jsonl"
    path.write_text("".join(json.dumps({"text": r["text"], "sexual": a}) + "\n" for r, a, use in zip(rows, answers, learned) if use))
    sources = [
        {"name": "categories", "files": [str(path)], "label_columns": {"sexual": "sexual"}},
        {"name": "phrases", "files": ["package://phrases.jsonl"], "answers": {"sexual": 0}},
    ]
    arguments = {"minn": 2, "maxn": 6, "minCount": 1}
    spec = TrainingSpec.model_validate({"name": "sexual", "labels": ["sexual"], "sources": sources, "fasttext": arguments})
    model, _ = trained(spec, folder / "sexual")
    rest = [(row["text"], answer) for row, answer, use in zip(rows, answers, learned) if not use]
    head("Sexual, from half of surge_profanity's categories")
    part = Judged("other half: sexual / other profanity", [text for text, _ in rest], [answer for _, answer in rest])
    print(measure(part.name, *pair(scores(model, part.texts, "sexual"), part)), flush=True)


def quality(data: Path, run: str | None) -> None:
    started = time.perf_counter()
    folder = builtin("quality")
    head(f"Built-in quality ({time.perf_counter() - started:.1f} s; near nothing where it was in the cache)")
    rows = rows_of(data / "quality/dclm_human.jsonl")
    part = Judged("quality: DCLM's human labels", [row["text"] for row in rows], [int(row["label"]) for row in rows])
    print(measure(part.name, *pair(scores(folder, part.texts, "quality"), part)))
    lengths = np.array([len(text) for text in part.texts], np.float64)
    print(measure("  the text's length alone", lengths / lengths.max(), part.answers, 0.5))
    for name, texts in clean_pages(data, run).items():
        found = np.nan_to_num(scores(folder, texts, "quality")[0])
        print(f"    pages, {name}: {len(texts)}, tenths of the scores {np.quantile(found, np.arange(0.1, 1, 0.2)).round(3).tolist()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--run", help="A run of manuals, for pages that are clean.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, parts = Path(temporary), arguments.parts
        judged = prepare_data(arguments.data.resolve(), folder)
        if "toxicity" in parts:
            toxicity(arguments.data, folder, judged, arguments.run)
        if "labels" in parts:
            labels(folder, judged)
        if "unseen" in parts:
            unseen_sources(arguments.data, folder, judged)
        if "sexual" in parts:
            sexual(arguments.data, folder)
        if "quality" in parts:
            quality(arguments.data, arguments.run)


if __name__ == "__main__":
    main()
