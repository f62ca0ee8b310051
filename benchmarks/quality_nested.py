"""Measures how the built-in `quality` ranks pages that had no part in its making.

    python benchmarks/quality_nested.py            # real data at ../shared/data (--data), packages from the registries

Candidates are fastText models of five mixes of good texts (Wikipedia, speeches, Brown; each against all mails) with two kinds of features,
each alone, with the length of the text, with its share of stop words, and with both. The score is the sum of the parts, each divided by
its standard deviation over 300 documents of C4, which have no labels. Prints AUCs on DCLM's human labels with 95% bootstrap intervals:

* of the candidate with the greatest AUC on other data: the types of WCXB's 1,497 pages, by their main text. Articles and documentation
  should stand before products, collections and listings. For this candidate, the AUC on the types comes with an interval over hosts;
* nested: the best candidate on nine tenths of the labels scores the other tenth, over 10 divisions. Near copies share a tenth.

`--scores FOLDER` keeps the models' log-odds, and takes those that are there.
"""

import argparse
import gzip
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash
from scipy.stats import rankdata

from corpusmill.filters.classifier.calibrate import Calibration, log_odds
from corpusmill.filters.classifier.corpora import CORPORA
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import added_odds
from corpusmill.filters.classifier.spec import Arguments

ROOT = Path(__file__).resolve().parent.parent
#: The good sources, and of how many pieces one is used, by hash: each has about 2,500 then.
GOOD = {"wikipedia": 1, "speeches": 4, "brown": 2}
MIXES = ("W", "S", "B", "WS", "WB")
FEATURES = {"def": Arguments(), "uni": Arguments(wordNgrams=1, minn=0, maxn=0, minCount=3, bucket=1)}
PIECE, LONGEST_PAGE = 1_200, 50_000
BETTER, WORSE = ("article", "documentation"), ("product", "collection", "listing")
DIVISIONS, FOLDS, RESAMPLES, SEED = 10, 10, 1_000, 1
NEAR_COPIES = ((8, 174), (138, 139))  # places of labelled texts that share a fifth of their 30-character passages; no other pair has 3%
Floats = npt.NDArray[np.float64]


def rows_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def lines(texts: Sequence[str]) -> list[str]:
    return list(write_form("words", pa.array(texts, pa.large_string())).to_pylist())


def pieces(names: Sequence[str]) -> list[str]:
    found = []
    for text in (text for name in names for text in CORPORA[f"{name}.jsonl"].texts()):
        start = 0
        while start < len(text):
            end = text.find(" ", start + PIECE) if start + PIECE < len(text) else -1
            end = len(text) if end < 0 else end
            if len(piece := text[start:end].strip()) > 40:
                found.append(piece)
            start = end
    return [line for line in dict.fromkeys(lines(found)) if line]


def model_odds(texts: list[str], folder: Path) -> dict[str, Floats]:
    """Returns the log-odds of the texts by each model."""
    missing = [(mix, name) for name in FEATURES for mix in MIXES if not (folder / f"{mix}-all-{name}.npy").is_file()]
    if missing:
        bad, read = pieces(("mails-1", "mails-2")), lines([text[:LONGEST_PAGE] for text in texts])
        good = {
            name[0].upper(): [line for line in pieces([name]) if not xxhash.xxh3_64_intdigest(line) % part] for name, part in GOOD.items()
        }
    for mix, name in missing:
        yes = [line for source in mix for line in good[source]]
        examples = [f"__label__yes {line}" for line in yes * max(1, len(bad) // (2 * len(yes)))] + [f"__label__no {line}" for line in bad]
        random.Random(SEED).shuffle(examples)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write("\n".join(examples) + "\n")
            file.flush()
            model = fasttext.train_supervised(file.name, thread=1, seed=SEED, verbose=0, **FEATURES[name].model_dump())
        answers = [dict(zip(*found)) for found in zip(*model.predict(read, k=2))]
        np.save(folder / f"{mix}-all-{name}.npy", log_odds([found.get("__label__yes", 0.0) for found in answers]))
    return {f"{mix} {name}": np.load(folder / f"{mix}-all-{name}.npy") for mix in MIXES for name in FEATURES}


def area(answer: npt.NDArray[np.bool_], score: Floats) -> float:
    """Returns the AUC by ranks (Mann & Whitney), in a tenth of the time of scikit-learn's."""
    yes = int(answer.sum())
    return float((rankdata(score)[answer].sum() - yes * (yes + 1) / 2) / (yes * (len(answer) - yes)))


def auc(score: Floats, answer: npt.NDArray[np.bool_], groups: Sequence[object] | None = None) -> str:
    """Returns the AUC with its interval over examples, or over groups of them."""
    places = np.unique(groups if groups is not None else np.arange(len(score)).astype(str), return_inverse=True)[1]
    members = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
    draw, found = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[place] for place in draw.integers(0, len(members), len(members))])
        found.append(area(answer[rows], score[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{area(answer, score):.3f} [{low:.3f} {high:.3f}]"


def nested(scores: dict[str, Floats], answer: npt.NDArray[np.bool_]) -> tuple[Floats, dict[str, int]]:
    """Returns each example's score by the candidates that were chosen without it, in the mean over divisions; and how often each was."""
    total, chosen = np.zeros(len(answer)), dict.fromkeys(scores, 0)
    for division in range(DIVISIONS):
        fold = np.random.default_rng(division).permutation(len(answer)) % FOLDS
        for first, second in NEAR_COPIES:
            fold[second] = fold[first]
        for part in range(FOLDS):
            rest = fold != part
            best = max(scores, key=lambda name: area(answer[rest], scores[name][rest]))
            total[~rest] += scores[best][~rest]
            chosen[best] += 1
    return total, {name: count for name, count in chosen.items() if count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--scores", type=Path)
    options = parser.parse_args()
    labelled = rows_of(options.data / "quality/dclm_human.jsonl")
    neutral = rows_of(options.data / "text/c4_demo.jsonl")
    pages = rows_of(options.data / "realweb/wcxb_dev_gold.jsonl.gz")
    texts = [row["text"] or " " for row in [*labelled, *neutral, *pages]]
    of = np.repeat([0, 1, 2], [len(labelled), len(neutral), len(pages)])
    with tempfile.TemporaryDirectory() as temporary:
        odds = model_odds(texts, options.scores or Path(temporary))
    given = pa.array(texts, pa.large_string())
    odds |= {"length": added_odds(Calibration(length=1), given), "stop words": added_odds(Calibration(stop_words=1), given)}
    spread = {name: value[of == 1].std() for name, value in odds.items()}
    print("standard deviations over C4:", {name: round(float(value), 4) for name, value in spread.items()})
    parts = {name: (value - value[of == 1].mean()) / spread[name] for name, value in odds.items()}
    length, stop = parts.pop("length"), parts.pop("stop words")
    candidates = {}
    for name, score in parts.items():
        candidates |= {name: score, f"{name} + length": score + length, f"{name} + stop words": score + stop}
        candidates[f"{name} + both"] = score + length + stop
    human = np.array([int(row["label"]) == 1 for row in labelled])
    kinds, hosts = np.array([page["type"] for page in pages]), np.array([urlsplit(page["url"]).hostname for page in pages])
    typed = np.isin(kinds, BETTER + WORSE)
    answer = np.isin(kinds[typed], BETTER)
    print(f"\n{'':24s} WCXB's types  DCLM's labels")
    for name, score in {**candidates, "length": length, "stop words": stop}.items():
        print(f"{name:24s} {area(answer, score[of == 2][typed]):12.3f} {area(human, score[of == 0]):14.3f}")
    for title, part in (("model alone", list(parts)), ("every candidate", list(candidates))):
        best = max(part, key=lambda name: area(answer, candidates[name][of == 2][typed]))
        on_types = auc(candidates[best][of == 2][typed], answer, hosts[typed])
        print(f"{title}: chosen by WCXB's types ({best}): {on_types} there, {auc(candidates[best][of == 0], human)} on DCLM's labels")
        score, chosen = nested({name: candidates[name][of == 0] for name in part}, human)
        print(f"{title}: nested in DCLM's labels {auc(score, human)}; chosen: {chosen}", flush=True)


if __name__ == "__main__":
    main()
