"""Fits the scorer of blocks to pages whose main text is known, and writes its trees.

    pip install -e '.[fit]'
    python benchmarks/fit_extraction.py GOLD_FOLDER [--output ingest/html/scorer.json]

GOLD_FOLDER is described in `gold.py`. A block of a page with a whole gold text is main text where most of its words match
that text in order. Where only segments are known, blocks that hold one are labelled by it; for the others trafilatura's
verdict stands in, with a tenth of the weight. Prints how well scorers do on sites that they have not seen (five folds by
site), then fits one to all pages.
"""

import argparse
import json
import tempfile
import zlib
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import gold
import numpy as np
from gold import GoldPage

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import main_text as extractor
from corpusmill.ingest.html.features import NAMES, context_of, features
from corpusmill.ingest.html.main_text import LEVELS, MODEL, keep, load_trees, render, score
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import CHARS, END, START

FOLDS = 5
NESTING = 5000
#: Weight of a block with a known segment, and of one labelled by trafilatura's verdict.
KNOWN, TEACHER = 2.5, 0.25
PARAMETERS = {
    "iterations": 200, "depth": LEVELS, "learning_rate": 0.12, "rsm": 0.4, "border_count": 64, "random_seed": 1, "thread_count": 2,
    "verbose": False, "allow_writing_files": False,
}  # fmt: skip


class Example:
    """A page in blocks, with a label (1 main text, 0 not, -1 unknown) and a weight for each."""

    def __init__(self, page: GoldPage):
        self.page = page
        with Tree(page.html.encode()) as tree:
            self.blocks = extractor.blocks_of(tree, NESTING)
        self.context = context_of(self.blocks) if len(self.blocks.blocks) else None
        self.features = np.zeros((0, len(NAMES)), np.float32)
        if self.context:
            self.features = features(self.blocks, self.context, 0, len(self.blocks.blocks)).T
        data = self.blocks.text.tobytes()
        texts = [data[block[START] : block[END]].decode() for block in self.blocks.blocks]
        self.fold = zlib.crc32(page.site.encode()) % FOLDS
        self.labels, weights = self._labels(texts)
        # a page counts by the root of its size, a block by the root of its own
        size = np.sqrt(self.blocks.blocks[:, CHARS] + 5.0)
        self.weights = weights * size / np.sqrt(max(size.sum(), 1.0))

    def _labels(self, texts: list[str]) -> tuple[Any, Any]:
        page = self.page
        if page.text is not None:
            return in_order(texts, page.text), np.ones(len(texts))
        import trafilatura

        labels = in_order(texts, trafilatura.extract(page.body, include_comments=False, deduplicate=False) or "")
        weights = np.full(len(texts), TEACHER)
        for number, text in enumerate(texts):
            for label, known in ((1, page.required), (0, page.forbidden)):
                if any(segment in text or (len(text) > 12 and text in segment) for segment in known):
                    labels[number], weights[number] = label, KNOWN
        return labels, weights


def in_order(texts: list[str], text: str) -> Any:
    """Returns 1 for each text most of whose words match `text` in order, 0 for others, -1 for those without a word."""
    found = [gold.words(text) for text in texts]
    owners = np.repeat(np.arange(len(found)), [len(some) for some in found])
    matches = np.zeros(len(found))
    matcher = SequenceMatcher(None, [word for some in found for word in some], gold.words(text), autojunk=False)
    for match in matcher.get_matching_blocks():
        np.add.at(matches, owners[match.a : match.a + match.size], 1)
    counts = np.array([len(some) for some in found])
    return np.where(counts == 0, -1, matches >= counts / 2).astype(float)


def fit(examples: Sequence[Example]) -> Any:
    import catboost

    labels = np.concatenate([example.labels for example in examples])
    known = labels >= 0
    rows = np.concatenate([example.features for example in examples])[known]
    weights = np.concatenate([example.weights for example in examples])[known]
    model = catboost.CatBoostClassifier(**PARAMETERS)
    return model.fit(catboost.Pool(rows, labels[known], weight=weights / weights.mean()))


def predict(model: Any, example: Example) -> Any:
    return model.predict_proba(example.features)[:, 1] if len(example.features) else np.zeros(0)


def held_out_scores(examples: Sequence[Example]) -> dict[str, Any]:
    """Returns by URL the scores of a page's blocks, by a scorer that has seen no page of its site."""
    found = {}
    for fold in range(FOLDS):
        model = fit([example for example in examples if example.fold != fold])
        for example in examples:
            if example.fold == fold:
                found[example.page.url] = predict(model, example)
    return found


def texts_at(examples: Sequence[Example], scores: dict[str, Any], threshold: float) -> dict[str, str]:
    texts = {}
    for example in examples:
        if example.context:
            kept = keep(example.blocks, example.context, scores[example.page.url], threshold, False)
            texts[example.page.url] = render(example.blocks, kept).tobytes().decode()
    return {example.page.url: texts.get(example.page.url, "") for example in examples}


def flattened(model: Any) -> dict[str, list[Any]]:
    """Returns CatBoost's symmetric trees as the arrays of `scorer.Trees`; its bias goes into the first tree."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        saved = json.loads(path.read_text())
    scale, (bias,) = saved["scale_and_bias"]
    trees: dict[str, list[Any]] = {"feature": [], "cut": [], "values": []}
    for tree in saved["oblivious_trees"]:
        splits = tree["splits"] or []
        missing = LEVELS - len(splits)  # fills up a tree that stopped early with questions that are always false
        trees["feature"].append([split["float_feature_index"] for split in splits] + [0] * missing)
        trees["cut"].append([split["border"] for split in splits] + [1e30] * missing)
        values = [round(scale * value + (bias if not trees["values"] else 0), 5) for value in tree["leaf_values"]]
        trees["values"].append(values + [0.0] * (2**LEVELS - len(values)))
    return trees


def check(path: Path, model: Any, examples: Sequence[Example]) -> None:
    """Checks that the kernel gives CatBoost's scores. Raises SystemExit where it does not."""
    for example in examples:
        ours = score(np.ascontiguousarray(example.features.T), load_trees(path))
        if np.abs(ours - predict(model, example)).max(initial=0.0) > 1e-3:
            raise SystemExit(f"{example.page.url}: the kernel and CatBoost disagree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=MODEL)
    options = parser.parse_args()
    examples = [Example(page) for page in gold.load(options.folder)]
    print(f"{len(examples)} pages, {sum(len(e.labels) for e in examples):,} blocks, {len({e.page.site for e in examples})} sites")
    scores = held_out_scores(examples)
    for threshold in sorted({0.3, 0.36, 0.4, 0.48, ExtractionConfig().keep_score}):
        print(f"from {threshold:.2f}, sites not seen: {gold.quality(texts_at(examples, scores, threshold), [e.page for e in examples])}")
    model = fit(examples)
    pages = {name: sum(e.page.set == name for e in examples) for name in gold.SETS}
    options.output.write_text(json.dumps({"fitted_on_pages": pages, "features": NAMES, "trees": flattened(model)}) + "\n")
    check(options.output, model, examples)
    print(f"{options.output}: {PARAMETERS['iterations']} trees, {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
