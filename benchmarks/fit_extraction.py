"""Fits the model that finds the main text and the type of a page to pages where both are known, and writes its trees.

    pip install -e '.[fit]'
    python benchmarks/fit_extraction.py GOLD_FOLDER [--output ingest/html/scorer.json]

GOLD_FOLDER is described in `gold.py`. A block's label is the share of its words that match the page's gold text in order. Where
only segments are known, blocks that hold one are labelled by it; for the others trafilatura's verdict stands in, with a tenth
of the weight.

The model is a stack: trees for the page's type; trees for blocks, to which the type is known; trees for blocks that know what
the trees before say of all blocks. Each is fitted to what the trees before say of sites that they have not seen. Prints how
well stacks do on sites that no tree of them has seen (five folds by site), then fits one to all pages.
"""

import argparse
import json
import tempfile
import zlib
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import Any

import gold
import numpy as np
from gold import GoldPage
from numpy.typing import NDArray

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import main_text as extractor
from corpusmill.ingest.html.features import around_of, context_of, features, second_features
from corpusmill.ingest.html.main_text import COLUMNS, LEVELS, MODEL, keep, load_model, render, score
from corpusmill.ingest.html.metadata import read_head
from corpusmill.ingest.html.page_type import PAGE_NAMES, TYPES, page_values, stated_values, type_probabilities
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, START

FOLDS = frozenset(range(5))
NESTING = 5000
#: Weight of a block with a known segment, and of one labelled by trafilatura's verdict.
KNOWN, TEACHER = 2.5, 0.25
#: Weights of the pages of each set for blocks: the sets differ in what belongs to an article, and WCXB has most pages.
SET_WEIGHTS = {"scrapinghub": 2.0, "readability": 2.0, "trafilatura": 1.0, "wcxb_dev": 1.0}
#: Blocks of a page that are learned from, about: blocks with more text are likelier to be among them.
SAMPLE = 120
#: Weight of a page for the types whose set has articles alone.
ARTICLE_SETS = 0.3
#: Weight of a page that is shown once more without its URL, and which values these are.
UNNAMED = 0.5
OF_URL = np.array([name.startswith(("url_", "host_")) for name in PAGE_NAMES])
SHARED = {"random_seed": 1, "thread_count": 2, "verbose": False, "allow_writing_files": False, "border_count": 32}
TYPE_TREES = {"loss_function": "MultiClass", "iterations": 150, "depth": 4, "learning_rate": 0.08, "rsm": 0.3, "l2_leaf_reg": 5, **SHARED}
FIRST_TREES = {"loss_function": "CrossEntropy", "iterations": 150, "depth": LEVELS, "learning_rate": 0.12, "rsm": 0.3, **SHARED}
SECOND_TREES = {"loss_function": "CrossEntropy", "iterations": 150, "depth": LEVELS, "learning_rate": 0.08, "rsm": 0.3, **SHARED}


class Example:
    """A page in blocks, with a label (the share that is main text; -1 unknown) and a weight for each."""

    def __init__(self, page: GoldPage):
        self.page = page
        with Tree(page.html.encode()) as tree:
            self.blocks = extractor.blocks_of(tree, NESTING)
            head = read_head(tree, self.blocks)
        self.stated = stated_values(page.url, head.metas, head.title, head.linked_data)
        self.fold = zlib.crc32(page.site.encode()) % len(FOLDS)
        if not len(self.blocks.blocks):
            return
        self.context = context_of(self.blocks)
        self.values = page_values(self.blocks, self.context, self.stated)
        #: The features with no type known.
        self.features = features(self.blocks, self.context, np.zeros(len(TYPES)), 0, len(self.blocks.blocks)).T.copy()
        data = self.blocks.text.tobytes()
        texts = [data[block[START] : block[END]].decode() for block in self.blocks.blocks]
        self.labels, weights = self._labels(texts)
        # a page counts by the root of its size, a block by the root of its own
        size = np.sqrt([len(gold.words(text)) + 1.0 for text in texts])
        weights *= size / np.sqrt(size.sum())
        chance = np.minimum(1, SAMPLE * weights / weights.sum())
        taken = np.random.default_rng(zlib.crc32(page.url.encode())).random(len(texts)) < chance
        self.sample = np.flatnonzero(taken & (self.labels >= 0))
        self.weights = SET_WEIGHTS[page.set] * (weights / chance)[self.sample]

    def _labels(self, texts: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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

    def text(self, types: NDArray[np.float64], scores: NDArray[np.float64], config: ExtractionConfig) -> str:
        kept = keep(self.blocks, self.context, types, scores, config.keep_score, config.comments)
        return render(self.blocks, kept).tobytes().decode()


def in_order(texts: list[str], text: str) -> NDArray[np.float64]:
    """Returns for each text the share of its words that match `text` in order, -1 for those without a word."""
    found = [gold.words(text) for text in texts]
    owners = np.repeat(np.arange(len(found)), [len(some) for some in found])
    matches = np.zeros(len(found))
    matcher = SequenceMatcher(None, [word for some in found for word in some], gold.words(text), autojunk=False)
    for match in matcher.get_matching_blocks():
        np.add.at(matches, owners[match.a : match.a + match.size], 1)
    counts = np.array([len(some) for some in found])
    return np.where(counts == 0, -1, matches / np.maximum(counts, 1))


class Stack:
    """The three kinds of trees that have not seen the folds `unseen`.

    What one kind learns from is what the kind before says of a page by trees that have not seen the page's fold either: these are of a
    stack with one more unseen fold, of which each is fitted once.
    """

    def __init__(
        self, examples: Sequence[Example], unseen: frozenset[int] = frozenset(), made: dict[frozenset[int], "Stack"] | None = None
    ):
        self.examples, self.unseen, self.made = examples, unseen, {} if made is None else made
        self.seen = [example for example in examples if example.fold not in unseen]

    def without(self, fold: int) -> "Stack":
        """Returns the stack that has not seen `fold`, too."""
        unseen = self.unseen | {fold}
        if unseen not in self.made:
            self.made[unseen] = Stack(self.examples, unseen, self.made)
        return self.made[unseen]

    @cached_property
    def types(self) -> Any:
        import catboost

        weights = np.array([1.0 if example.page.set == "wcxb_dev" else ARTICLE_SETS for example in self.seen])
        values, labels = np.stack([example.values for example in self.seen]), [TYPES.index(example.page.type) for example in self.seen]
        unnamed = np.where(OF_URL, 0, values)  # some pages have no URL
        pool = catboost.Pool(np.vstack([values, unnamed]), [*labels, *labels], weight=np.concatenate([weights, UNNAMED * weights]))
        return catboost.CatBoostClassifier(**TYPE_TREES).fit(pool)

    @cached_property
    def first(self) -> Any:
        return self._fit(FIRST_TREES, [self.without(example.fold).columns(example)[example.sample] for example in self.seen])

    @cached_property
    def second(self) -> Any:
        return self._fit(SECOND_TREES, [self.without(example.fold).more_columns(example)[example.sample] for example in self.seen])

    def _fit(self, parameters: dict[str, Any], rows: list[NDArray[np.float32]]) -> Any:
        import catboost

        labels = np.concatenate([example.labels[example.sample] for example in self.seen])
        weights = np.concatenate([example.weights for example in self.seen])
        pool = catboost.Pool(np.concatenate(rows), labels, weight=weights / weights.mean())
        print(f"  {len(labels):,} blocks, without {sorted(self.unseen)}: {parameters['iterations']} trees", flush=True)
        return catboost.CatBoostClassifier(**parameters).fit(pool)

    def types_of(self, example: Example) -> NDArray[np.float64]:
        return np.asarray(self.types.predict_proba(example.values[None])[0])

    def columns(self, example: Example) -> NDArray[np.float32]:
        """Returns the features of a page's blocks, with the page's type."""
        columns = example.features.copy()
        columns[:, -len(TYPES) :] = self.types_of(example)
        return columns

    def more_columns(self, example: Example) -> NDArray[np.float32]:
        columns = self.columns(example)
        scores = self.first.predict_proba(columns)[:, 1].copy()
        around = around_of(example.blocks, example.context, scores)
        return np.hstack([columns, second_features(example.blocks, example.context, around, 0, len(scores)).T])

    def scores(self, example: Example) -> NDArray[np.float64]:
        return np.asarray(self.second.predict_proba(self.more_columns(example))[:, 1])


def held_out_texts(stack: Stack, config: ExtractionConfig) -> tuple[dict[str, str], dict[str, NDArray[np.float64]]]:
    """Returns by URL the texts and the probabilities of the types of all pages, by stacks that have seen no page of the site."""
    texts, types = {}, {}
    for example in stack.examples:
        unseen = stack.without(example.fold)
        types[example.page.url] = unseen.types_of(example)
        texts[example.page.url] = example.text(types[example.page.url], unseen.scores(example), config)
    return texts, types


def examples_of(pages: Sequence[GoldPage]) -> list[Example]:
    """Returns the pages that have blocks."""
    return [example for example in map(Example, pages) if len(example.blocks.blocks)]


def flattened(model: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Returns CatBoost's symmetric trees as the arrays of `main_text.Trees`; its bias goes into the first tree."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        saved = json.loads(path.read_text())
    scale, bias = saved["scale_and_bias"]
    levels = max(len(tree["splits"] or []) for tree in saved["oblivious_trees"])
    trees: dict[str, list[Any]] = {"columns": list(columns), "feature": [], "cut": [], "values": []}
    for tree in saved["oblivious_trees"]:
        splits = tree["splits"] or []
        missing = levels - len(splits)  # fills up a tree that stopped early with questions that are always false
        trees["feature"].append([split["float_feature_index"] for split in splits] + [0] * missing)
        trees["cut"].append([float(f"{split['border']:.9g}") for split in splits] + [1e30] * missing)
        values = scale * np.reshape(tree["leaf_values"], (2 ** len(splits), len(bias))) + (np.array(bias) if not trees["values"] else 0)
        values = np.vstack([values, np.zeros((2**levels - len(values), len(bias)))]).round(4)
        trees["values"].append((values if len(bias) > 1 else values[:, 0]).tolist())
    return trees


def check(path: Path, stack: Stack) -> None:
    """Checks that the kernels give CatBoost's scores. Raises SystemExit where they do not."""
    model = load_model(path)
    for example in stack.examples[::10]:
        columns, more = stack.columns(example), stack.more_columns(example)
        for ours, theirs in (
            (type_probabilities(example.values, model.types), stack.types_of(example)),
            (score(columns.T.copy(), model.first), stack.first.predict_proba(columns)[:, 1]),
            (score(more.T.copy(), model.second), stack.second.predict_proba(more)[:, 1]),
        ):
            if np.abs(ours - theirs).max() > 1e-3:
                raise SystemExit(f"{example.page.url}: the kernels and CatBoost disagree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=MODEL)
    options = parser.parse_args()
    pages = gold.load(options.folder)
    examples = examples_of(pages)
    print(f"{len(examples)} pages, {sum(len(e.labels) for e in examples):,} blocks, {len({e.page.site for e in examples})} sites")
    stack = Stack(examples)
    model = {"fitted_on_pages": {name: sum(e.page.set == name for e in examples) for name in gold.SETS}}
    model |= {name: flattened(getattr(stack, name), columns) for name, columns in COLUMNS.items()}
    options.output.write_text(json.dumps(model, separators=(",", ":")) + "\n")
    check(options.output, stack)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")
    texts = dict.fromkeys((page.url for page in pages), "") | held_out_texts(stack, ExtractionConfig())[0]
    print(f"sites not seen: {gold.quality_by_type(texts, pages)}\n  {gold.quality(texts, pages)}")


if __name__ == "__main__":
    main()
