"""What the run's classifiers say of a model's answers before and after alignment: a task of the stage `align`."""

import contextlib
import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.stage import Output
from corpusmill.train import tuning
from corpusmill.train.options import Temperature
from corpusmill.train.scores import FilterScore, classifier_columns, find_score, score_params

if TYPE_CHECKING:
    from corpusmill.pipeline.runner import StageRun

JUDGED_FILE = "judged.json"


class JudgedConfig(Config):
    """Answers that are sampled before and after alignment and scored by the run's own classifiers."""

    prompts: int = Field(default=64, ge=0, description="Prompts of held-out pairs that both models answer; 0: none.")
    max_tokens: int = Field(default=48, ge=1, description="Longest answer, in tokens.")
    temperature: Temperature = Field(default=0.7, description="Of the answers; 0 takes the most likely token.")
    top_k: int = Field(default=50, ge=0, description="Answers are drawn from this many most likely tokens; 0: from all.")
    resamples: int = Field(default=1000, ge=100, description="Bootstrap resamples of prompts for the interval of a difference.")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the intervals.")
    seed: int = Field(default=0, ge=0, description="Of answers and resamples; before and after are drawn with the same.")


def judged_scores(run: "StageRun", more: Sequence[str] = ()) -> list[FilterScore]:
    """The scores that judge answers: of the columns `more` and of the run's classifiers, those of which a rule says what is good.

    A score that only ranks documents has no say in single answers, nor has one that cannot tell this corpus's documents apart.
    """
    found = {column: find_score(run, column) for column in more}
    for column in classifier_columns(run):
        with contextlib.suppress(InputError):
            found.setdefault(column, find_score(run, column))
    return [found[column] for column in sorted(found) if found[column].threshold is not None and not found[column].blind]


def judge_answers(
    run: "StageRun", config: JudgedConfig, start: tuning.StartModel, device: str, pairs: FileRef, more: Sequence[str] = ()
) -> None:
    """Samples and judges, where the run has a classifier."""
    scores = judged_scores(run, more) if config.prompts else []
    if not scores:
        return
    before, after = start.files, [run.task("model").ref(run.stage.name, o.path) for o in run.task("model").outputs]
    params = score_params(run, [each.column for each in scores])
    inputs = [*before, *(ref for ref in after if "/model/" in ref.path), pairs]
    run.once("judged", inputs, partial(_judge, run, config, start, device, scores), params, config)


def _judge(run: "StageRun", config: JudgedConfig, start: tuning.StartModel, device: str, scores: Sequence[FilterScore], _: str) -> Output:
    from corpusmill.train.judged_samples import judge

    found = judge(run, config, (start.folder, run.storage.path("model")), device, scores)
    return Output({JUDGED_FILE: tuning.json_file(found)}, rows_in=found["prompts"], kept=found["prompts"])


def judged_lines(run: "StageRun", config: JudgedConfig) -> dict[str, str]:
    """A line for each score, with the interval of the difference."""
    if not config.prompts:
        return {}
    if "judged" not in run.plan:
        return {"answers judged": "no (no classifier of the filter stage can judge single texts of this corpus)"}
    found: dict[str, Any] = json.loads(run.storage.read_bytes(JUDGED_FILE))
    if not found["prompts"]:
        return {"answers judged": "no (no pair is held out)"}
    return {f"{column} of answers": _judged_sentence(of) for column, of in found["scores"].items()}


def _judged_sentence(of: dict[str, Any]) -> str:
    if not of["texts"]:
        return "no answer could be scored"
    sentence = f"{of['before']:.3f} before, {of['after']:.3f} after (difference {of['low']:+.3f} to {of['high']:+.3f}"
    if (equal := of["equal_length"].get("difference")) is not None:
        sentence += f"; {equal:+.3f} at equal length"
    if of["threshold"] is None:
        return f"{sentence})"
    shares = (of[side]["value"] for side in ("worse_before", "worse_after"))
    return sentence + "); {:.0%} and {:.0%} ".format(*shares) + f"{'below' if of['high_is_good'] else 'from'} {of['threshold']:.3g}"
