"""The filter stage: measures every document with every step of the recipe, then decides which ones to keep."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from corpusmill.filters.classifier.options import Resolved
from corpusmill.filters.classifier.step import ClassifierStep
from corpusmill.filters.kept_share import keeps_shares, kept_share_summary, measure_and_decide
from corpusmill.filters.rights import SITES_FILE, Rights, site_table
from corpusmill.filters.rules import Rule, StepRule, fails
from corpusmill.filters.step import build_steps
from corpusmill.filters.worker import FilterConfig, FilterWorker, rule_table
from corpusmill.pipeline.formats.sites import FOLDER as SITES_FOLDER
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output, Stage, Task
from corpusmill.pipeline.storage import Storage
from corpusmill.text.word_rules import rule_libraries


class FilterStage(Stage):
    name = "filter"
    Config = FilterConfig
    config: FilterConfig

    def libraries(self) -> tuple[str, ...]:
        of_steps = [library for step in build_steps(self.config.steps) for library in step.step.libraries]
        return (*of_steps, *rule_libraries(self.config.word_rule))

    def execute(self, run: StageRun) -> None:
        describe_classifiers(run, self.config)
        tasks, params = self.tasks(run)
        params |= self._sites(run)
        gpus = max((step.step.gpus for step in build_steps(self.config.steps)), default=0.0)
        if keeps_shares(self.config):
            rows = measure_and_decide(run, self.config, tasks, params, gpus)
        else:
            rows = run.map("", FilterWorker, tasks, params, gpus=gpus, allow_partial=True)
        count_answers(run, self.config, rows)

    def tasks(self, run: StageRun) -> tuple[list[Task], dict[str, Any]]:
        """Returns a task for each input shard, and the parameters that all tasks share."""
        tasks = [Task(PurePosixPath(shard.path).stem, (shard,)) for shard in run.documents()]
        steps = [step.step for step in build_steps(self.config.steps)]
        params: dict[str, Any] = {"models": [digest for step in steps for digest in step.model_digests()]}
        if any(step.shares_limits for step in steps):
            params["bytes"] = sum(task.size for task in tasks)
        return tasks, params

    def _sites(self, run: StageRun) -> dict[str, str]:
        """Brings together what `ingest` read of the sites, if a step asks for it; returns the digest as a parameter of the tasks."""
        if "ingest" not in run.recipe or not any(isinstance(step.step, Rights) for step in build_steps(self.config.steps)):
            return {}
        refs = run.outputs_of("ingest", SITES_FOLDER)
        none = [] if refs else ["the crawl has no robots.txt, tdmrep.json or ai.txt, so what sites reserve is not known."]
        row = run.once("sites", refs, lambda _: Output({SITES_FILE: site_table(run.run, refs)}, warnings=none))
        return {"sites": row.outputs[0].sha256}

    def summary(self, run: StageRun) -> dict[str, str]:
        """Returns lines for the terminal: the rules that fail the most documents, in that order, and the thresholds of kept shares."""
        failed, counts = Counter[str](), Counter[str]()
        for row in run.manifest.rows():
            failed.update(row.failed)
            counts.update(row.counts)
        most = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
        lines = {"failed": ", ".join(f"{name} {count:,}" for name, count in most[:8])} if most else {}
        steps = {step.name: step.step.summary(counts) for step in build_steps(self.config.steps)}
        return lines | {name: line for name, line in steps.items() if line} | kept_share_summary(run, self.config)


# ---- What a run records about its classifiers: `filter/classifiers/NAME.json` describes a classifier and its training,
# `filter/answers.json` counts the documents on which each score fires. The manifest's row has the sha256 of the model files.

TASK, FOLDER = "classifiers", "classifiers"
ANSWERS, ANSWERS_FILE = "answers", "answers.json"
#: A score that fires on more than this share of a corpus does not fit the corpus. With fewer than FEWEST scored documents there is no
#: warning, since a high share may be chance.
TENTH, FEWEST = 0.1, 20


def describe_classifiers(run: StageRun, config: FilterConfig) -> None:
    """Writes a description of each classifier in the recipe; nothing if it has none."""
    used: dict[str, Resolved] = {}
    for step in build_steps(config.steps):
        if isinstance(step.step, ClassifierStep):
            used[step.step.name + step.suffix] = step.step.resolved(
                lambda sentence: run.progress.console.print(sentence, style="dim", markup=False, soft_wrap=True)
            )
    if used:
        inputs = [ref for name in used for ref in _files(name, used[name])]
        files = {f"{FOLDER}/{name}.json": _description(resolved) for name, resolved in used.items()}
        run.once(TASK, inputs, lambda _: Output(dict(files)), {"descriptions": [each.decode() for each in files.values()]})


def count_answers(run: StageRun, config: FilterConfig, rows: Iterable[TaskRow]) -> None:
    """Counts the documents on which each bad score (high values are bad) fires, and warns if these are more than a tenth.

    A score fires where a rule of the recipe fails a document. If no rule can fail one, it fires from the classifier's own threshold on.
    Scores with a kept share are left out, since the recipe asks for that share. `rows`: the tasks that wrote the report.
    """
    rules = _firing(config)
    if rules:
        reports = [row.ref(run.stage.name, o.path) for row in rows for o in row.outputs if o.path.startswith("report/")]
        params = {column: [rule.as_json() for rule in each] for column, each in rules.items()}
        run.once(ANSWERS, reports, lambda _: _count(run.run, reports, rules), params)


def _firing(config: FilterConfig) -> dict[str, list[StepRule]]:
    """Returns the rules of each score by its column: the score fires on a document that fails one of them."""
    table, found = rule_table(config), dict[str, list[StepRule]]()
    for step in build_steps(config.steps):
        for name, threshold in step.step.bad_from().items():
            column = name + step.suffix
            rules = [each for each in table if each.rule.column == column]
            if not any(each.rule.kept for each in rules):
                able = [each for each in rules if _can_fail(each.rule)]
                found[column] = able or [StepRule(step.name, Rule(column, column, ">=", threshold))]
    return found


def _can_fail(rule: Rule) -> bool:
    """Whether the rule can fail a score, which is at most 1."""
    return isinstance(rule.threshold, int | float) and bool(fails(rule.comparison, 1.0, rule.threshold))


def _count(run: Storage, reports: Sequence[FileRef], rules: Mapping[str, Sequence[StepRule]]) -> Output:
    counts = {column: np.zeros(2, np.int64) for column in rules}
    for ref in reports:
        report = read_table(run, ref.path, sorted({each.rule.column for of in rules.values() for each in of} | set(rules)))
        for column, of in rules.items():
            failing = np.logical_or.reduce([each.rule.failing(report[each.rule.column].combine_chunks()) for each in of])
            counts[column] += [len(report) - report[column].null_count, failing.sum()]
    answers: dict[str, Any] = {}
    warnings = []
    for column, (scored, fires) in counts.items():
        answers[column] = {"scored": int(scored), "fires": int(fires), "rules": [each.as_json() for each in rules[column]]}
        if scored >= FEWEST and fires > TENTH * scored:
            where = " or ".join(f"{r.rule.column} {r.rule.comparison} {r.rule.threshold:.4g}" for r in rules[column])
            warnings.append(
                f"{column} fires on {fires:,} of {scored:,} documents ({fires / scored:.1%}; {where}): that is more than a tenth of the "
                f"corpus, so the classifier or its threshold does not fit these documents."
            )
    return Output({ANSWERS_FILE: (json.dumps(answers, indent=2) + "\n").encode()}, warnings=warnings)


def _files(name: str, resolved: Resolved) -> list[FileRef]:
    """The classifier's files, named after the classifier instead of their folder, which differs between machines."""
    sizes = {file: os.path.getsize(resolved.folder / file) for file in resolved.files}
    return [FileRef(f"{name}/{file}", sha256, sizes[file]) for file, sha256 in sorted(resolved.files.items())]


def _description(resolved: Resolved) -> bytes:
    return (json.dumps(resolved.classifier.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()
