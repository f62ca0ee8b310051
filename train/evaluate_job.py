"""Measures one model of a run: bits per byte of held-out text, held-out preferences, and sampled texts."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.intervals import wilson
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tasks
from corpusmill.train.align_job import Numbered, measured_logps
from corpusmill.train.align_pairs import pairs_from_table, prepare_pair
from corpusmill.train.compute import deterministic
from corpusmill.train.generate import Sampling, generate_batch, load_text_generator, plain
from corpusmill.train.options import LONGEST_ROW
from corpusmill.train.parallel.model import ParallelModel
from corpusmill.train.validation import Validation, makers, read_tokenizer

if TYPE_CHECKING:
    from corpusmill.train.evaluate import EvaluateConfig


#: Pairs that are computed at a time.
PAIRS = 4

# ---- samples -----------------------------------------------------------------------------------------
#
# Models write texts on prompts from documents from which no stage has learned.

_BEGINNING = 120  # characters of a document that a model is asked to continue


def choose_prompts(tables: Iterable[pa.Table], held_out: Callable[[str], bool], count: int) -> list[dict[str, str]]:
    """Returns prompts from `count` held-out documents, chosen by hash: the beginning of a text to continue, and an instruction to
    answer."""

    def build(source: tasks.SourceDocument) -> list[dict[str, str]]:
        prose = [block for block in tasks.blocks(source.text) if tasks.is_prose(block)] if held_out(source.id) else []
        questions = tasks.instructions(source, 2 * _BEGINNING) if prose else []
        if not questions:
            return []
        return [{"document": source.id, "text": tasks.cut(prose[0], _BEGINNING), "question": questions[0].prompt}]

    return tasks.choose(tables, "samples", count, 1, build) if count else []


def choose_held_out(examples: pa.Table, count: int) -> list[dict[str, str]]:
    """Returns prompts from `count` held-out examples of tuning, chosen by hash: the first message to answer, the beginning of its
    answer."""
    held_out = sorted((row for row in examples.to_pylist() if row["held_out"]), key=lambda row: tasks.hash_of("samples", row["id"]))
    found = []
    for row in held_out[:count]:
        asked = next((m["content"] for m in row["messages"] if m["role"] == "user"), "")
        answer = next((m["content"] for m in row["messages"] if m["role"] == "assistant"), "")
        found.append({"document": row["id"], "text": tasks.cut(answer, _BEGINNING), "question": asked})
    return found


# ---- measurements of a model -------------------------------------------------------------------------


class Measurement:
    """A model folder of a run, and its measurements."""

    def __init__(
        self, config: "EvaluateConfig", run: Storage, stage: str, precision: str = "auto", window: int | None = None,
        pair_window: int | None = None, document_mask: bool = True,
    ):  # fmt: skip
        self.config, self.run, self.stage, self.document_mask = config, run, stage, document_mask
        self.folder = local_model(run.path(f"{stage}/model"))
        self.generator = load_text_generator(self.folder, config.device)
        self.model, self.encoder = self.generator.model, self.generator.encoder
        self.local = ParallelModel(self.model, precision)
        self.window, self.pair_window = (min(given or LONGEST_ROW, self.model.arch.context) for given in (window, pair_window))

    def bits_per_byte(self, folder: Storage) -> dict[str, Any] | None:
        """Returns bits per byte over all validation tokens, with an interval by resampling documents; None without validation tokens."""
        tokenizer, _ = read_tokenizer(Storage(str(self.folder)))
        validation = Validation.open(folder.root, tokenizer, makers(self.run, tokenizer), self.window, self.document_mask)
        if validation is None:
            return None
        with deterministic():
            sums = validation.sums(self.local, self.model.device)
        score = sums.score(self.config.resamples, self.config.confidence, self.config.seed)
        found = {"value": score.bits_per_byte, "low": score.low, "high": score.high}
        return {**found, "documents": score.documents, "bytes": score.utf8_bytes}

    def preferences(self, folder: Storage, relative: str) -> dict[str, Any] | None:
        """Returns the share of held-out pairs whose chosen completion has the higher log-probability per token; None without pairs."""
        pairs = [pair for pair in pairs_from_table(read_table(folder, relative)) if pair.held_out]
        prepared = [prepare_pair(pair, self.encoder, self.pair_window) for pair in pairs]
        kept = [pair for pair in prepared if not pair.failed]
        if not kept:
            return None
        right = 0
        with deterministic():
            for begin in range(0, len(kept), PAIRS):
                some = kept[begin : begin + PAIRS]
                device = self.model.device
                sides = Numbered(
                    [*(p.chosen for p in some), *(p.rejected for p in some)], self.pair_window, device, few=device.type == "cuda"
                )
                logps = measured_logps(self.local, sides.collate(range(2 * len(some))))
                chosen, rejected = (logps.sums / logps.counts).chunk(2)
                right += int((chosen > rejected).sum())
        low, high = wilson(right, len(kept), self.config.confidence)
        return {"accuracy": right / len(kept), "low": low, "high": high, "pairs": len(kept)}

    def samples(self, prompts: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        """Returns texts on every prompt: `continuation` continues the document's beginning, and from a tuned model `answer` replies to the
        question in a chat."""
        kinds = ("continuation",) if self.stage == "pretrain" else ("continuation", "answer")
        with deterministic():
            written = [self._written(prompts, kind) for kind in kinds]
        return [sample for of_prompt in zip(*written, strict=True) for sample in of_prompt]

    def _written(self, prompts: Sequence[dict[str, str]], kind: str) -> list[dict[str, Any]]:
        generator, config, answers = self.generator, self.config, kind == "answer"
        # a continuation has no turns: where turns and documents end with different tokens, the token that ends a turn is banned there
        ends = generator.stop if answers else generator.stop.intersection(generator.begin) or generator.stop
        asked = [prompt["question" if answers else "text"] for prompt in prompts]
        texts = generate_batch(
            generator.model,
            [generator.ids(text, chat=answers) for text in asked],
            max_tokens=config.max_tokens,
            sampling=Sampling(temperature=config.temperature, top_k=config.top_k),
            seeds=[tasks.hash_of(f"sample {config.seed} {kind}", prompt["document"]) for prompt in prompts],
            stop=ends,
            banned=(*generator.banned, *sorted(generator.stop - ends)),
            tokenizer=generator.tokenizer,
        )
        return [
            {"kind": kind, "document": prompt["document"], "prompt": given, "text": plain(text.text), "tokens": len(text.tokens)}
            for prompt, given, text in zip(prompts, asked, texts, strict=True)
        ]
