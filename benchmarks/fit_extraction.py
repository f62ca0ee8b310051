"""Fits the net that finds the main text and the type of a page to pages where both are known, and writes its weights.

    pip install -e '.[fit]'
    python benchmarks/fit_extraction.py GOLD_FOLDER [--output ingest/html/scorer.npz]

GOLD_FOLDER is described in `gold.py`. A block's label is the share of its words that match the page's gold text in order. Where
only segments are known, blocks that hold one are labelled by it; for the others trafilatura's verdict stands in, with a tenth
of the weight. Prints how well nets do on sites that they have not seen (five folds by site), then fits one to all pages.
"""

import argparse
import zlib
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import gold
import numpy as np
import torch
from gold import GoldPage
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from corpusmill.ingest.config import ExtractionConfig
from corpusmill.ingest.html import main_text as extractor
from corpusmill.ingest.html.features import NAMES, context_of, features
from corpusmill.ingest.html.main_text import keep, render
from corpusmill.ingest.html.metadata import read_head
from corpusmill.ingest.html.page_type import PAGE_NAMES, TYPES, page_values, stated_values
from corpusmill.ingest.html.scorer import FAR, MODEL, Net, load_net, net_of, read_page
from corpusmill.ingest.html.tree import Tree
from corpusmill.ingest.html.walk import END, START

FOLDS = 5
NESTING = 5000
#: Weight of a block with a known segment, and of one labelled by trafilatura's verdict.
KNOWN, TEACHER = 2.5, 0.25
#: Weights of the pages of each set for blocks: the sets differ in what belongs to an article, and WCXB has most pages.
SET_WEIGHTS = {"scrapinghub": 2.0, "readability": 2.0, "trafilatura": 1.0, "wcxb_dev": 1.0}
#: Weight of the types' loss, of it that of a page whose set has articles alone, and how far the labels are smoothed.
TYPES_WEIGHT, ARTICLE_SETS, SMOOTHED = 0.2, 0.3, 0.1
#: The share of pages that are shown without their URL, as some pages have none; and which values these are.
UNNAMED = 0.3
OF_URL = np.array([name.startswith(("url_", "host_")) for name in PAGE_NAMES])
#: Units of each layer, passes over the pages, pages of a step, blocks of a page that a step reads, the highest learning rate.
UNITS, EPOCHS, BATCH, BLOCKS, RATE, DECAY, DROPOUT = 48, 8, 8, 600, 6e-3, 0.02, 0.2


class Example:
    """A page in blocks, with a label (the share that is main text; -1 unknown) and a weight for each."""

    def __init__(self, page: GoldPage):
        self.page = page
        with Tree(page.html.encode()) as tree:
            self.blocks = extractor.blocks_of(tree, NESTING)
            head = read_head(tree, self.blocks)
        self.stated = stated_values(page.url, head.metas, head.title, head.linked_data)
        self.fold = zlib.crc32(page.site.encode()) % FOLDS
        if not len(self.blocks.blocks):
            return
        self.context = context_of(self.blocks)
        self.values = page_values(self.blocks, self.context, self.stated)
        self.features = features(self.blocks, self.context, 0, len(self.blocks.blocks)).T
        data = self.blocks.text.tobytes()
        texts = [data[block[START] : block[END]].decode() for block in self.blocks.blocks]
        self.labels, weights = self._labels(texts)
        # a page counts by the root of its size, a block by the root of its own
        size = np.sqrt([len(gold.words(text)) + 1.0 for text in texts])
        self.weights = SET_WEIGHTS[page.set] * weights * size / np.sqrt(size.sum()) * (self.labels >= 0)

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

    def text(self, net: Net, config: ExtractionConfig) -> tuple[str, NDArray[np.float64]]:
        """Returns the main text that a net finds, and the probabilities of the types."""
        scores, types = read_page(self.blocks, self.context, self.stated, net)
        kept = keep(self.blocks, self.context, types, scores, config.keep_score, config.comments)
        return render(self.blocks, kept).tobytes().decode(), types


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


class Scan(nn.Module):
    """A layer that reads the blocks of pages in both directions; see `scorer.py`."""

    def __init__(self, units: int):
        super().__init__()
        self.gates = nn.Linear(units, 2 * units)
        with torch.no_grad():  # some units forget at once, some carry their state for twenty blocks
            self.gates.bias[:units] = torch.linspace(-3, 1, units // 2).repeat(2)

    def forward(self, before: Tensor, mask: Tensor) -> Tensor:
        gate, new = self.gates(before).chunk(2, dim=-1)
        gate = (0.5 + 0.5 * functional.softsign(gate)) * mask
        forwards, backwards = ((1 - gate).chunk(2, dim=-1)[side] for side in (0, 1))
        ahead, behind = (gate * new).chunk(2, dim=-1)
        return torch.cat([scan(forwards, ahead), scan(backwards.flip(1), behind.flip(1)).flip(1)], dim=-1)


def scan(shares: Tensor, values: Tensor) -> Tensor:
    """Returns the states `state = share * state + value` of all blocks, in steps that double their reach."""
    step = 1
    while step < values.shape[1]:
        before = functional.pad(values, (0, 0, step, 0))[:, : values.shape[1]]
        values = values + shares * before
        shares = shares * functional.pad(shares, (0, 0, step, 0))[:, : values.shape[1]]
        step *= 2
    return values


class Reader(nn.Module):
    """The net of `scorer.py`, for inputs that are scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.page, self.types = nn.Linear(len(PAGE_NAMES), UNITS), nn.Linear(UNITS, len(TYPES))
        self.first, self.scan, self.mean, self.scan2 = nn.Linear(len(NAMES), UNITS), Scan(UNITS), nn.Linear(UNITS, UNITS), Scan(UNITS)
        self.last, self.out, self.drop = nn.Linear(3 * UNITS, UNITS), nn.Linear(UNITS, 1), nn.Dropout(DROPOUT)

    def forward(self, blocks: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the log-odds of blocks (pages, blocks), and those of the pages' types. `mask`: 1 for a block, 0 for a gap behind it."""
        page = functional.relu(self.page(self.drop(values)))
        first = functional.relu(self.first(self.drop(blocks)) + page[:, None])
        second = first + self.drop(self.scan(first, mask))
        second = second + self.mean((second * mask).sum(1) / mask.sum(1))[:, None]
        third = second + self.drop(self.scan2(second, mask))
        mixed = functional.relu(self.last(self.drop(torch.cat([first, second, third], dim=-1))))
        return self.out(mixed)[..., 0], self.types(page)


def root(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.sign(values) * np.sqrt(np.abs(values.astype(np.float64)))


def fit(examples: Sequence[Example], seed: int = 1) -> dict[str, NDArray[np.generic]]:
    """Returns the arrays of `scorer.Net`, float16."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    rows = np.concatenate([root(example.features[:300]) for example in examples])  # of a long page, its first blocks
    pages = root(np.stack([example.values for example in examples]))
    scales = {"block_mean": rows.mean(0), "block_scale": 1 / (rows.std(0) + 1e-3)}
    scales |= {"page_mean": pages.mean(0), "page_scale": 1 / (pages.std(0) + 1e-3)}
    inputs = [Inputs(example, scales) for example in examples]
    reader = Reader()
    batches = -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(reader.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * batches, pct_start=0.15)
    for _ in range(EPOCHS):
        # pages of like length share a step
        order = sorted(range(len(inputs)), key=lambda number: len(inputs[number].labels) + 40 * random.standard_normal())
        for batch in random.permutation(batches):
            loss = loss_of(reader, [inputs[number] for number in order[batch * BATCH : (batch + 1) * BATCH]], random)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return arrays_of(reader, scales)


class Inputs:
    """What the net learns of a page, as tensors. `unnamed`: the page's values without its URL."""

    def __init__(self, example: Example, scales: dict[str, NDArray[np.float64]]):
        self.blocks = scaled(example.features, scales["block_mean"], scales["block_scale"])
        self.values, self.unnamed = (
            scaled(values, scales["page_mean"], scales["page_scale"]) for values in (example.values, np.where(OF_URL, 0, example.values))
        )
        self.labels, self.weights = (torch.from_numpy(each).float() for each in (np.maximum(example.labels, 0), example.weights))
        self.type, self.type_weight = TYPES.index(example.page.type), 1.0 if example.page.set == "wcxb_dev" else ARTICLE_SETS


def loss_of(reader: Reader, pages: Sequence[Inputs], random: np.random.Generator) -> Tensor:
    """Returns the loss of a step: of a page with more blocks than BLOCKS, some of them are read, at random."""
    lengths = [min(len(page.labels), BLOCKS) for page in pages]
    starts = [int(random.integers(len(page.labels) - length + 1)) for page, length in zip(pages, lengths)]
    parts = [slice(start, start + length) for start, length in zip(starts, lengths)]
    blocks, labels, weights = (
        pad_sequence([getattr(page, name)[part] for page, part in zip(pages, parts)], batch_first=True)
        for name in ("blocks", "labels", "weights")
    )
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    values = torch.stack([page.unnamed if random.random() < UNNAMED else page.values for page in pages])
    odds, types = reader(blocks, values, mask[..., None].float())
    of_blocks = (functional.binary_cross_entropy_with_logits(odds, labels, reduction="none") * weights).sum() / (weights.sum() + 1e-6)
    of_types = functional.cross_entropy(types, torch.tensor([page.type for page in pages]), reduction="none", label_smoothing=SMOOTHED)
    shares = torch.tensor([page.type_weight for page in pages])
    return of_blocks + TYPES_WEIGHT * (of_types * shares).sum() / shares.sum()


def scaled(values: NDArray[np.float32], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.clip((root(values) - mean) * scale, -FAR, FAR)).float()


def arrays_of(reader: Reader, scales: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, NDArray[np.generic]] = {name: values.astype(np.float32) for name, values in scales.items()}
    for name, values in reader.state_dict().items():
        layer, kind = name.replace(".gates", "").split(".")
        arrays[layer if kind == "weight" else f"{layer}_bias"] = values.numpy().astype(np.float16)
    return {"block_names": np.array(NAMES), "page_names": np.array(PAGE_NAMES)} | arrays


def held_out_texts(examples: Sequence[Example], config: ExtractionConfig) -> tuple[dict[str, str], dict[str, NDArray[np.float64]]]:
    """Returns by URL the texts and the probabilities of the types of all pages, by nets that have seen no page of the site."""
    texts, types = {}, {}
    for fold in range(FOLDS):
        net = net_of(fit([example for example in examples if example.fold != fold]))
        for example in examples:
            if example.fold == fold:
                texts[example.page.url], types[example.page.url] = example.text(net, config)
        print(f"  fitted without fold {fold}", flush=True)
    return texts, types


def examples_of(pages: Sequence[GoldPage]) -> list[Example]:
    """Returns the pages that have blocks."""
    return [example for example in map(Example, pages) if len(example.blocks.blocks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=MODEL)
    options = parser.parse_args()
    pages = gold.load(options.folder)
    examples = examples_of(pages)
    print(f"{len(examples)} pages, {sum(len(e.labels) for e in examples):,} blocks, {len({e.page.site for e in examples})} sites")
    texts, types = held_out_texts(examples, ExtractionConfig())
    texts = dict.fromkeys((page.url for page in pages), "") | texts
    print(f"sites not seen: {gold.quality_by_type(texts, pages)}\n  {gold.quality(texts, pages)}")
    wcxb = [page for page in pages if page.set == "wcxb_dev" and page.url in types]
    print(f"types right: {np.mean([TYPES[int(types[page.url].argmax())] == page.type for page in wcxb]):.3f}")
    np.savez_compressed(options.output, **fit(examples))
    load_net(options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
