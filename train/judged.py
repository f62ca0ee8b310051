"""Compares two models' answers to the same prompts, with the same seeds, by the scores of classifiers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.cache import local_model
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.storage import Storage
from corpusmill.train import tasks
from corpusmill.train.align_pairs import PreferencePair, pairs_from_table
from corpusmill.train.compute import deterministic
from corpusmill.train.generate import Sampling, generate_batch, load_text_generator, plain
from corpusmill.train.scores import FilterScore, TextScorer
from corpusmill.train.template import load_chat
from corpusmill.train.validation import bootstrap_ratio, wilson

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun
    from corpusmill.train.align import JudgedConfig

Values = npt.NDArray[np.float64]


def judge(run: "StageRun", config: "JudgedConfig", models: tuple[str, str], device: str, scores: Sequence[FilterScore]) -> dict[str, Any]:
    """Returns the content of `judged.json`: for each score a comparison, and every prompt with both answers and their scores.

    `models`: the folders of the model before and after alignment. A score of windows is worse for longer texts, and alignment may change
    lengths. So answers are compared once more, with both answers cut to the number of tokens of the shorter one.
    """
    prompts = choose_prompts(pairs_from_table(read_table(run.storage, "data/pairs.parquet")), config.prompts)
    before, after = (answer(folder, prompts, config, device) for folder in models)
    tokenizer = load_chat(Storage(str(local_model(models[1])))).tokenizer
    shorter = [min(len(a), len(b)) for a, b in zip(before, after, strict=True)]
    scorer = TextScorer(run, [score.column for score in scores])

    def texts(answers: Sequence[list[int]]) -> list[str]:
        return [plain(tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in answers]

    def cut(answers: Sequence[list[int]]) -> list[str]:
        return texts([tokens[:length] for tokens, length in zip(answers, shorter, strict=True)])

    whole, equal = [[scorer.score(of(side)) for side in (before, after)] for of in (texts, cut)]
    return {
        "prompts": len(prompts),
        "tokens_before": _mean([len(tokens) for tokens in before]),
        "tokens_after": _mean([len(tokens) for tokens in after]),
        "scores": {each.column: compare(each, whole, config) | {"equal_length": compare(each, equal, config)} for each in scores},
        "answers": [
            {
                "document": pair.id,
                "kind": pair.kind,
                "prompt": plain(pair.prompt[-1]["content"]),
                **{side: {"text": text, **_numbers(values, number)} for side, text, values in zip(("before", "after"), both, whole)},
            }
            for number, (pair, *both) in enumerate(zip(prompts, texts(before), texts(after), strict=True))
        ],
    }


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _numbers(values: dict[str, Values], number: int) -> dict[str, float | None]:
    return {column: None if np.isnan(of[number]) else float(of[number]) for column, of in values.items()}


def choose_prompts(pairs: Sequence[PreferencePair], count: int) -> list[PreferencePair]:
    """Returns at most `count` held-out pairs with different prompts, by hash. Only their prompts are used."""
    different = {"\0".join(message["content"] for message in pair.prompt): pair for pair in pairs if pair.held_out}
    return [different[prompt] for prompt in sorted(different, key=lambda prompt: tasks.hash_of("judged", prompt))[:count]]


def answer(folder: str, prompts: Sequence[PreferencePair], config: "JudgedConfig", device: str) -> list[list[int]]:
    """Returns the tokens of a model's answers. The seed of an answer depends only on `config.seed` and its prompt."""
    generator = load_text_generator(folder, device)
    with deterministic():
        answers = generate_batch(
            generator.model,
            [generator.encoder.encode(pair.prompt, add_generation_prompt=True).ids.tolist() for pair in prompts],
            max_tokens=config.max_tokens,
            sampling=Sampling(temperature=config.temperature, top_k=config.top_k),
            seeds=[tasks.hash_of(f"judged {config.seed}", pair.prompt[-1]["content"]) for pair in prompts],
            stop=generator.stop,
            banned=generator.banned,
        )
        return [each.tokens for each in answers]


def compare(score: FilterScore, sides: Sequence[dict[str, Values]], config: "JudgedConfig") -> dict[str, Any]:
    """Returns means, the interval of the paired difference, and the shares beyond the threshold with Wilson's intervals.

    `sides`: before and after, each by column float64 (prompts,), with NaN for an answer that can't be scored (an empty one). A prompt
    counts only where both answers have a score.
    """
    before, after = (of[score.column] for of in sides)
    known = ~(np.isnan(before) | np.isnan(after))
    before, after = before[known], after[known]
    found: dict[str, Any] = {"texts": len(before), "not_scored": int((~known).sum())}
    if not len(before):
        return found
    low, high = bootstrap_ratio(after - before, np.ones(len(before)), config.resamples, config.confidence, config.seed)
    means = {"before": before.mean(), "after": after.mean(), "difference": (after - before).mean()}
    found |= {**{name: float(value) for name, value in means.items()}, "low": low, "high": high}
    found |= {"threshold": score.threshold, "high_is_good": score.high_is_good}
    if score.threshold is not None:
        for side, values in (("before", before), ("after", after)):
            worse = int((values < score.threshold).sum() if score.high_is_good else (values >= score.threshold).sum())
            ends = wilson(worse, len(values), config.confidence)
            found[f"worse_{side}"] = {"value": worse / len(values), "low": ends[0], "high": ends[1]}
    return found
