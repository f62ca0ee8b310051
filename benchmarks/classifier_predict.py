"""Compares the scores of several fastText models with fastText's own `predict(list, k=-1)` on the same texts: one core, processor time.

    taskset -c 0 python benchmarks/classifier_predict.py DOCUMENTS.parquet [MORE.jsonl ...] --models A.bin [B.bin ...]
                                                         [--form plain] [--megabytes 60] [--rounds 5]

Times each model alone, then, if there are several, all of them as the labels of one classifier. Each round takes texts that no earlier
round has seen. The first round is a warm-up and is not counted: it compiles kernels and fills the cache of frequent tokens. fastText gets
lists of lines that are prepared beforehand; corpusmill starts from Arrow and prepares the lines itself. Prints medians, and the greatest
difference between the scores of a model's first label.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from fasttext import load_model

from corpusmill.filters.classifier.card import ClassifierDescription, ClassifierHead
from corpusmill.filters.classifier.forms import FORMS, write_form
from corpusmill.filters.classifier.score import Scorer
from filters import read_texts, up_to


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def deal(texts: list[str], rounds: int) -> list[pa.Array]:
    """Splits the texts into rounds of about the same size."""
    sizes = np.cumsum([len(text.encode()) for text in texts])
    places = np.searchsorted(sizes, sizes[-1] * np.arange(rounds + 1) / rounds)
    return [pa.array(texts[start:end], pa.large_string()) for start, end in zip(places, [*places[1:-1], len(texts)])]


def first_label(listed: tuple[Any, Any], label: str) -> npt.NDArray[np.float64]:
    """Returns fastText's scores of a label: at most 1, as in corpusmill; 0 where fastText does not list the label."""
    return np.minimum([dict(zip(labels, scores)).get(label, 0.0) for labels, scores in zip(*listed)], 1.0)


def compare(paths: list[Path], form: Any, texts: list[pa.Array]) -> float:
    """Prints the speeds of both in MB/s of the original texts; returns corpusmill's speed divided by fastText's."""
    theirs = [load_model(str(path)) for path in paths]
    labels = [model.get_labels()[0] for model in theirs]
    with tempfile.TemporaryDirectory() as folder:
        heads = []
        for place, (path, label) in enumerate(zip(paths, labels)):
            heads.append(ClassifierHead(label=label, file=f"{place}{path.suffix}", positive=label))
            (Path(folder) / heads[-1].file).symlink_to(path.resolve())
        scorer = Scorer(folder, ClassifierDescription(name="models", form=form, heads=tuple(heads)))
    speeds: list[tuple[float, float]] = []
    difference = 0.0
    for number, part in enumerate(texts):
        lines, megabytes = write_form(form, part).to_pylist(), part.nbytes / 1e6
        their_time, listed = timed(lambda lines=lines: [model.predict(lines, k=-1) for model in theirs])
        our_time, scores = timed(lambda part=part: scorer.score(part))
        if number:
            speeds.append((megabytes / their_time, megabytes / our_time))
            for label, expected, found in zip(labels, listed, scores):
                distance = np.abs(first_label(expected, label) - found)
                difference = max(difference, float(np.nanmax(distance)))
    their_speed, our_speed = (median(speed) for speed in zip(*speeds))
    ratio = median(ours / other for other, ours in speeds)
    name = " + ".join(path.name for path in paths)
    print(f"{name:50} {their_speed:9.1f} {our_speed:9.1f} {ratio:6.2f} {difference:12.1e}", flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", nargs="+", type=Path, help="JSONL or Parquet files with a column text")
    parser.add_argument("--models", nargs="+", type=Path, required=True, help="fastText classifiers, .bin or .ftz")
    parser.add_argument("--form", choices=FORMS, default="plain")
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts = up_to([text for text in read_texts(arguments.documents) if text.strip()], arguments.megabytes)
    parts = deal(texts, arguments.rounds + 1)
    megabytes = sum(part.nbytes for part in parts) / 1e6
    print(f"{len(texts):,} texts, {megabytes:.1f} MB, form {arguments.form}, {arguments.rounds} rounds and one before them\n")
    print(f"{'MB/s':50} {'fastText':>9} {'ours':>9} {'ratio':>6} {'difference':>12}")
    for path in arguments.models:
        compare([path], arguments.form, parts)
    if len(arguments.models) > 1:
        compare(arguments.models, arguments.form, parts)


if __name__ == "__main__":
    main()
