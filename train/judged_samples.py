"""Answers of two models to the same prompts with the same seeds, and what classifiers make of the difference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.shards import read_table
from corpusmill.train import tasks
from corpusmill.train.device import deterministic
from corpusmill.train.generate import generate_batch
from corpusmill.train.intervals import bootstrap_ratio, wilson
from corpusmill.train.preference_data import Pair, pairs_from_table
from corpusmill.train.sampling import Sampling
from corpusmill.train.scores import Score, TextScorer
from corpusmill.train.speaker import load_speaker

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.judged import JudgedConfig

SIDES = ("before", "after")


def judge(run: "StageRun", config: "JudgedConfig", models: tuple[str, str], device: str, scores: Sequence[Score]) -> dict[str, Any]:
    """What `judged.json` holds: for each score a comparison, and every prompt with both answers and their scores.

    `models`: the folders of the model before and after, in the run's folder.
    """
    prompts = choose_prompts(pairs_from_table(read_table(run.storage, "data/pairs.parquet")), config.prompts)
    answers = {side: answer(run, folder, prompts, config, device) for side, folder in zip(SIDES, models, strict=True)}
    scorer = TextScorer(run, [score.column for score in scores])
    found = {side: scorer.score([text for text, _ in answers[side]]) for side in SIDES}
    tokens = {side: float(np.mean([count for _, count in answers[side]])) if prompts else None for side in SIDES}
    return {
        "prompts": len(prompts),
        "tokens_before": tokens["before"],
        "tokens_after": tokens["after"],
        "scores": {each.column: compare(each, found["before"][each.column], found["after"][each.column], config) for each in scores},
        "answers": [
            {"document": pair.id, "kind": pair.kind, "prompt": pair.prompt[-1]["content"]}
            | {
                side: {"text": answers[side][number][0]} | {name: _known(values[number]) for name, values in found[side].items()}
                for side in SIDES
            }
            for number, pair in enumerate(prompts)
        ],
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def choose_prompts(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """At most `count` held-out pairs with different prompts, by hash: the prompts are what counts of them."""
    different = {"\0".join(message["content"] for message in pair.prompt): pair for pair in pairs if pair.held_out}
    return [different[prompt] for prompt in sorted(different, key=lambda prompt: tasks.hash_of("judged", prompt))[:count]]


def answer(run: "StageRun", folder: str, prompts: Sequence[Pair], config: "JudgedConfig", device: str) -> list[tuple[str, int]]:
    """A model's answers and how many tokens each has. A prompt's seed hangs on nothing but the prompt."""
    speaker = load_speaker(run.run.path(folder), device)
    asked = [speaker.encoder.encode(pair.prompt, add_generation_prompt=True).ids.tolist() for pair in prompts]
    seeds = [tasks.hash_of(f"judged {config.seed}", pair.prompt[-1]["content"]) >> 1 for pair in prompts]  # torch takes 63 bits
    with deterministic():
        texts = generate_batch(
            speaker.model, asked, max_tokens=config.max_tokens, sampling=Sampling(temperature=config.temperature, top_k=config.top_k), seeds=seeds,
            stop=speaker.stop, banned=speaker.banned, tokenizer=speaker.tokenizer,
        )  # fmt: skip
        return [(text.text, len(text.tokens)) for text in texts]


def compare(score: Score, before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], config: "JudgedConfig") -> dict[str, Any]:
    """Means, the interval of the paired difference, and the shares on the bad side of the threshold with Wilson's intervals.

    `before` and `after` are float64 (prompts,), NaN for an answer that can't be scored (an empty one); a prompt counts where both can be.
    """
    known = ~(np.isnan(before) | np.isnan(after))
    before, after = before[known], after[known]
    found: dict[str, Any] = {
        "texts": len(before), "not_scored": int((~known).sum()), "threshold": score.threshold, "high_is_good": score.high_is_good,
    }  # fmt: skip
    if not len(before):
        return found
    low, high = bootstrap_ratio(after - before, np.ones(len(before)), config.resamples, config.confidence, config.seed)
    found |= {"before": before.mean(), "after": after.mean(), "difference": (after - before).mean(), "low": low, "high": high}
    found = {name: float(value) if isinstance(value, np.floating) else value for name, value in found.items()}
    if score.threshold is not None:
        for side, values in zip(SIDES, (before, after), strict=True):
            worse = int((values < score.threshold).sum() if score.high_is_good else (values >= score.threshold).sum())
            ends = wilson(worse, len(values), config.confidence)
            found[f"worse_{side}"] = {"value": worse / len(values), "low": ends[0], "high": ends[1]}
    return found
