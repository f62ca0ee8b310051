"""Other thresholds for a finished filter stage, without measuring a text again.

`sweep` tries thresholds of one rule on the values in the report. `retune` applies new thresholds: it decides again and writes the outputs.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from corpusmill.filters.kept_share import KeptShareWorker, find_thresholds, keeps_shares, read_found, shard_reader, with_found
from corpusmill.filters.own import looking
from corpusmill.filters.relation import OFF, ask, report_of
from corpusmill.filters.rules import Rule, StepRule, decide, rules_metadata
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterConfig, FilterWorker, Rewriter, decided, rule_table
from corpusmill.pipeline.code import Code, code_for, shortened
from corpusmill.pipeline.config import config_digest
from corpusmill.pipeline.engine import Engine
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.failures import sentence_of_all
from corpusmill.pipeline.lease import Lease, holding
from corpusmill.pipeline.manifest import Manifest, TaskRow, task_identity
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.printed import Printed
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.run import RUN_FILE, Plan, check_kept, describe, plan_of_existing
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import open_parquet, publish, read_table
from corpusmill.pipeline.stage import Task, failed_counts
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

# ---- Sweep

#: Shards of a report that one query reads: to begin one takes milliseconds.
SHARDS = 16
#: The column with a row's shard in such a query; no step measures one of this name.
SHARD = "shard of the query"


@dataclass(frozen=True)
class Kept:
    """What one threshold keeps, by this rule alone and together with all other rules: documents, and characters of the input texts."""

    threshold: float
    alone_documents: int
    alone_characters: int
    together_documents: int
    together_characters: int


@dataclass(frozen=True, repr=False)
class Sweep(Printed):
    """The thresholds that were tried for a rule, and what each of them keeps of all `documents` and `characters`."""

    rule: str
    column: str
    comparison: str
    now: float | None  # the current threshold; None if the rule is off
    documents: int
    characters: int
    missing: int  # documents without a value: no threshold drops them
    rows: tuple[Kept, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def show(self, console: Console) -> None:
        from corpusmill.filters.views import show_sweep

        show_sweep(self, console)


def sweep(folder: str, name: str, first: float | None = None, last: float | None = None, steps: int = 11, trust: bool = False) -> Sweep:
    """Tries `steps` thresholds from `first` to `last` for the rule `name` on a finished filter stage; by default those that
    drop equal shares of the first shards' documents, and today's.

    Raises InputError if there is no such rule, if it compares with a list, if the stage is not finished, if it needs a document's value to
    begin or end with and there is none, and without `trust` if a step is code of the run's own.
    """
    with looking(not trust):
        config = plan_of_existing(folder).sections.get("filter")
        if not isinstance(config, FilterConfig):
            raise InputError(f"{folder}: the run's recipe has no stage filter.")
        found, now = _rule(config, name)
    rule = found.rule
    for option, end in (("--from", first), ("--to", last)):
        if end is not None:
            try:
                found.check(end)
            except ValueError as error:
                raise InputError(f"{option} {end:g}: {error}.") from error
    storage = Storage(folder).child("filter")
    manifest = Manifest(storage, read_only=True)
    if not manifest.complete:
        raise InputError(f"{storage.root}: the stage filter is not finished, so there is nothing to sweep over.")
    if rule.unknown and now is not None and now != now:
        now = read_found(storage)[name]
    paths = [output.path for row in manifest.rows() for output in row.outputs if output.path.startswith("report/")]
    if first is not None and last is not None:
        given = {float(f"{value:.12g}") for value in np.linspace(first, last, steps).tolist()}
        if now is not None and min(first, last) <= now <= max(first, last) and float(f"{now:.12g}") not in given:
            given.add(float(now))
        thresholds = sorted(given)
    else:
        ends = [float(end) for end in (first, last, now) if end is not None and end == end]
        low, high = -inf if first is None else first, inf if last is None else last
        thresholds = sorted({*ends, *(value for value in _quantiles(storage, paths[:SHARDS], rule, steps) if low <= value <= high)})
        if not thresholds:
            raise InputError(f"{rule.name}: no document has a value of {rule.column}; give --from and --to.")
    sums = np.zeros((len(thresholds), 4), np.int64)
    documents = characters = missing = 0
    for begin in range(0, len(paths), SHARDS):
        tables = [read_table(storage, path, ["failed", "chars_in", rule.column]) for path in paths[begin : begin + SHARDS]]
        report = pa.concat_tables(tables)
        column = report[rule.column].combine_chunks()
        documents, characters = documents + len(column), characters + (pc.sum(report["chars_in"]).as_py() or 0)
        missing += column.null_count + (pc.sum(pc.is_nan(column)).as_py() or 0 if pa.types.is_floating(column.type) else 0)
        sums += _kept(rule, thresholds, report)
    rows = tuple(Kept(threshold, *counts) for threshold, counts in zip(thresholds, sums.tolist()))
    return Sweep(name, rule.column, rule.comparison, now, documents, characters, missing, rows)


def _rule(config: FilterConfig, name: str) -> tuple[StepRule, float | None]:
    """Returns the rule with that name, even if it is off, and its current threshold; NaN if the rule keeps a share of the corpus."""
    rules = {rule.rule.name: rule for rule in rule_table(config.model_copy(update={"thresholds": {}}))}
    now = {rule.rule.name: rule.rule.threshold for rule in rule_table(config)}
    if name not in rules:
        raise InputError(f"{name}: the filter has no such rule{instead_of(name, rules)}; rules of other stages need another run.")
    threshold = now.get(name)
    if isinstance(rules[name].rule.threshold, tuple) or isinstance(threshold, tuple):
        raise InputError(f"{name}: compares with a list, so it has no threshold to sweep over.")
    return rules[name], threshold


def _quantiles(storage: Storage, paths: Sequence[str], rule: Rule, steps: int) -> list[float]:
    """Returns the values that 1% to 99% of the documents in some shards lie below, rounded to two digits: each step drops about as many
    documents."""
    columns = [read_table(storage, path, [rule.column])[0].cast(pa.float64()).combine_chunks() for path in paths]
    values = pa.chunked_array(columns, pa.float64())
    shares = np.linspace(0.01, 0.99, steps).tolist()
    found = pc.quantile(values.filter(pc.is_finite(values)), shares).drop_null().to_pylist()
    return [float(f"{value:.2g}") for value in found]


def _kept(rule: Rule, thresholds: list[float], report: pa.Table) -> npt.NDArray[np.int64]:
    """int64 (thresholds, 4): documents and characters that this rule alone keeps, then those that also pass all other rules."""
    decides, sums = report_of(report), np.zeros((len(thresholds), 4), np.int64)
    fails = ", ".join(decides.fails(rule.column, rule.comparison, threshold) for threshold in thresholds)
    select = f"[{fails}], {decides.others([rule.name])}, count(*), coalesce(sum(chars_in), 0)::BIGINT"
    for failing, others, *counts in ask(report, select, "report GROUP BY ALL").fetchall():
        passes = ~np.array(failing, bool)
        sums[passes] += [*counts, *(0 if others else count for count in counts)]
    return sums


# ---- Shards that can be decided again: their files must be the ones that the manifest records


@dataclass(frozen=True)
class StoredShard:
    """A shard to decide about again: its task, its row of the manifest, and the identity of the task under the new configuration."""

    task: Task
    row: TaskRow
    identity: str


def measured_shards(run: StageRun, old_config: str, named: str) -> tuple[list[StoredShard], int]:
    """Returns the intact shards that were measured under the old configuration, and how many are already decided under the new one.
    `named`: the run that errors name."""
    stage = run.stage
    assert isinstance(stage, FilterStage)
    tasks, params = stage.tasks(run)
    _require_report(run, named)
    code = code_for(FilterWorker, run.stage.config.model_dump(mode="json"), params)
    shards, finished = [], 0
    for task in tasks:
        row = run.manifest.tasks.get(task.key)
        old, new = (
            task_identity(task.key, task.inputs, {**params, "piece": task.params}, config, code.digest)
            for config in (old_config, run.config_digest)
        )
        if row is not None and row.identity == new:
            finished += 1
        elif row is not None and row.identity == old and _intact(run.storage, row):
            shards.append(StoredShard(task, row, new))
    if tasks and not shards and not finished:
        raise _stale_error(run, tasks, old_config, code, named)
    return shards, finished


def _require_report(run: StageRun, named: str) -> None:
    if not report_rows(run):
        raise InputError(f"{named}/filter: nothing is measured yet; run the stage first ({stage_command(named, 'filter')}).")


def _stale_error(run: StageRun, tasks: Sequence[Task], old_config: str, code: Code, named: str) -> InputError:
    """Returns an error that names what has changed since the stage was measured, and what to do."""
    rows = run.manifest.tasks
    changed = dict.fromkeys(what for task in tasks for what in _changes(run, task, rows.get(task.key), old_config, code))
    return InputError(
        f"{named}/filter: can't be decided again, as since it was measured {' and '.join(changed)}; "
        f"measure it again first ({stage_command(named, 'filter')}), "
        f"or try thresholds without writing them (corpusmill sweep, or explore)."
    )


def _changes(run: StageRun, task: Task, row: TaskRow | None, old_config: str, code: Code) -> list[str]:
    if row is None:
        return ["shards came that were not there"]
    found = ["the section filter of its recipe was changed"] if row.config not in (old_config, run.config_digest) else []
    if row.code != code.digest:
        parts = run.manifest.codes.get(row.code)
        what = f" ({shortened(Code.from_json(parts).changes(code))})" if parts else ""
        found.append(f"the program was changed{what}")
    if [(ref.path, ref.fingerprint) for ref in row.inputs[: len(task.inputs)]] != [(ref.path, ref.fingerprint) for ref in task.inputs]:
        found.append("the documents that it read were changed")
    if not found and not _intact(run.storage, row):
        found.append("its files were changed")
    return found or ["a model or a list that its steps read was changed"]


def report_rows(run: StageRun) -> list[TaskRow]:
    """Returns the manifest's rows of the shards that have a report."""
    return [row for row in run.manifest.tasks.values() if any(output.path.startswith("report/") for output in row.outputs)]


def decided_shards(run: StageRun, old_config: str, named: str) -> list[StoredShard]:
    """Returns all shards of a finished stage whose recipe keeps a share of the corpus. `named`: the run that errors name.

    Raises InputError if `old_config` and the present code have not decided every shard.
    """
    _require_report(run, named)
    rows = {row.task: row for row in report_rows(run)}
    stage = run.stage
    assert isinstance(stage, FilterStage)
    tasks, params = stage.tasks(run)
    code = code_for(KeptShareWorker, run.stage.config.model_dump(mode="json"), params)
    if not run.manifest.complete or any(
        p.key not in rows or rows[p.key].config != old_config or rows[p.key].code != code.digest for p in tasks
    ):
        raise _stale_error(run, tasks, old_config, code, named)
    return [StoredShard(task, rows[task.key], rows[task.key].identity) for task in tasks]


def _intact(storage: Storage, row: TaskRow) -> bool:
    """Whether the shard's files have the content that the manifest records. A killed retune may have replaced one of them."""
    return all(storage.size(output.path) == output.bytes and storage.sha256(output.path) == output.sha256 for output in row.outputs)


# ---- Retune: applies other thresholds to the values in the report, without measuring any text
#
# Every report shard is rewritten; a data shard is rewritten only if a decision changed. The outputs have the bytes of a fresh run of the
# stage. The text of a document that comes back is made again from the previous stage's output, by the rewriting steps alone. A shard is
# published before its row of the manifest, and `run.json` last. After a crash, the stage measures the unfinished shards again.
#
# If a step keeps a share of the corpus, the measured values lie in files apart from the report (kept_share.py). The changes are still
# computed from the report's columns, and the stage itself decides again.


@dataclass(repr=False)
class Retuned(Printed):
    """What the new thresholds change."""

    documents: int = 0
    kept_before: int = 0
    kept: int = 0
    came_back: int = 0
    gone: int = 0
    data_shards: int = 0  # to be rewritten
    to_measure: int = 0  # shards to measure again, because their files differ from the manifest
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # by rule, the threshold before and now; None: off
    failed: dict[str, tuple[int, int]] = field(default_factory=dict)  # by rule, the number of documents that fail it, before and now
    lost: str = ""  # a sentence about the tasks that failed and were left out of the stage

    def show(self, console: Console) -> None:
        from corpusmill.filters.views import show_retuned

        show_retuned(self, console)


def retune(
    folder: str,
    overrides: list[str],
    engine: Engine,
    progress: Progress,
    on_decided: Callable[[Retuned], None] = lambda _: None,
    write: bool = True,
    on_message: Callable[[str], None] = lambda _: None,
    trust: bool = False,
) -> Retuned:
    """Applies `--set filter.thresholds.RULE=VALUE` to a finished filter stage.

    `on_decided` receives the changes before the reports are written. Without `write` nothing is written, and without `trust` no step that
    is code of the run's own is loaded for that: RunsCode is raised. `on_message` receives a sentence
    if another process has to finish first. Raises InputError if the stage is not finished under the run's recipe, ConfigError if anything
    but thresholds would change, and NothingKept if no document is left.
    """
    storage = Storage(folder)
    with looking(not write and not trust), closing(engine):
        before, now = plans(folder, overrides, "retune")
        with holding(storage, on_message) as lease:
            return retune_held(before, now, storage, lease, engine, progress, on_decided, write)


def plans(folder: str, overrides: list[str], command: str) -> tuple[Plan, Plan]:
    """Returns the run's plan, and the one with the overrides. Raises InputError or ConfigError if they can't be applied by deciding again;
    `command` is the one that was asked for."""
    before, now = plan_of_existing(folder), plan_of_existing(folder, overrides)
    if "filter" not in before.sections:
        raise InputError(f"{folder}: the run's recipe has no stage filter.")
    _only_thresholds(before, now, folder, command)
    _require_scores(_worker(before, Storage(folder)), _worker(now, Storage(folder)), folder, command)
    return before, now


def retune_held(
    before: Plan,
    now: Plan,
    storage: Storage,
    lease: Lease,
    engine: Engine,
    progress: Progress,
    on_decided: Callable[[Retuned], None],
    write: bool = True,
    measured: str = "",
) -> Retuned:
    """Decides again in the run `storage`, whose lease this process holds, and writes its `run.json`. `measured`: the run that errors name,
    if it is another one. Other arguments are as for `retune`."""
    old, worker = _worker(before, storage), _worker(now, storage)
    run = StageRun(FilterStage(worker.config), storage, dict(now.sections), now.inputs, engine, progress)
    run.hold(lease)
    measured = measured or storage.root
    if keeps_shares(worker.config):
        shards, finished = decided_shards(run, config_digest(old.config), measured), 0
        _find_shares(old, worker, run, shards)
    else:
        shards, finished = measured_shards(run, config_digest(old.config), measured)
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        result = _verdicts(old, worker, run, shards, finished, pool)
        on_decided(result)
        if write:
            _write(run, worker, shards, pool, progress)
            result.lost = sentence_of_all([("filter", row) for row in run.manifest.quarantined.values()])
            storage.write_bytes(RUN_FILE, describe(now))
            check_kept(run, lost=result.lost)
    return result


def _verdicts(
    old: FilterWorker, now: FilterWorker, run: StageRun, shards: Sequence[StoredShard], finished: int, pool: ThreadPoolExecutor
) -> Retuned:
    """Computes what the new thresholds change, from the columns of the changed rules alone."""
    thresholds = [{rule.rule.name: rule.rule.threshold for rule in worker.rules} for worker in (old, now)]
    names = [name for name in {**thresholds[0], **thresholds[1]} if thresholds[0].get(name) != thresholds[1].get(name)]
    result = Retuned(changed={name: (thresholds[0].get(name), thresholds[1].get(name)) for name in names})
    result.to_measure = 0 if keeps_shares(now.config) else len(report_rows(run)) - len(shards) - finished
    rules = [rule.rule for rule in now.rules if rule.rule.name in names]
    columns = ["kept", "failed", *dict.fromkeys(rule.column for rule in rules)]
    moves = {name: thresholds[1].get(name, OFF) for name in names}
    counts = ["count(*)", "count(*) FILTER (kept)", "count(*) FILTER (kept_now AND NOT kept)", "count(*) FILTER (kept AND NOT kept_now)"]
    counts += [f"count(*) FILTER (fails_{place})" for place in range(len(moves))]

    def read(shard: StoredShard) -> pa.Table:
        return read_table(run.storage, f"report/{shard.task.key}.parquet", columns)

    failed = np.zeros(len(moves), np.int64)
    for begin in range(0, len(shards), SHARDS):
        tables = list(pool.map(read, shards[begin : begin + SHARDS]))
        numbers = pa.array(np.repeat(np.arange(len(tables)), [table.num_rows for table in tables]))
        report = pa.concat_tables(tables).append_column(SHARD, numbers)
        decided = report_of(report).decided([(rule.name, rule.column, rule.comparison) for rule in rules], moves)
        for documents, kept_before, came_back, gone, *failing in ask(report, ", ".join(counts), f'{decided} GROUP BY "{SHARD}"').fetchall():
            result.documents, result.kept_before = result.documents + documents, result.kept_before + kept_before
            result.came_back, result.gone = result.came_back + came_back, result.gone + gone
            result.data_shards += bool(came_back or gone)
            failed += np.array(failing, np.int64)
    result.kept = result.kept_before + result.came_back - result.gone
    failed_before: Counter[str] = Counter()
    for shard in shards:
        failed_before.update(shard.row.failed)
    by_name = dict(zip(moves, failed.tolist()))
    result.failed = {name: (failed_before[name], by_name[name]) for name in names}
    return result


def _write(run: StageRun, worker: FilterWorker, shards: Sequence[StoredShard], pool: ThreadPoolExecutor, progress: Progress) -> None:
    """Publishes the decisions shard by shard. The stage then measures the remaining shards itself."""
    if shards and not keeps_shares(worker.config):
        run.manifest.reopen(shard.task.key for shard in shards)
        with progress.phase("retune", len(shards)) as bar:
            for row in pool.map(lambda shard: _retune_shard(worker, run, shard), shards):
                run.manifest.append(row)
                bar.advance(row.rows_in, row.bytes_in)
    run.execute()


def _only_thresholds(before: Plan, now: Plan, folder: str, command: str) -> None:
    for name, section in now.sections.items():
        old, new = before.sections[name].model_dump(mode="json"), section.model_dump(mode="json")
        for key in new:
            if old[key] != new[key] and (name, key) != ("filter", "thresholds"):
                raise ConfigError(
                    f"{command}: {name}.{key} would change, and only filter.thresholds can be changed without measuring again; "
                    f"for the rest: {stage_command(folder, name, None, '--redo', '--set', '...')}"
                )


def _worker(plan: Plan, storage: Storage) -> FilterWorker:
    config = plan.sections["filter"]
    assert isinstance(config, FilterConfig)
    return FilterWorker(config, storage, {})


def _find_shares(old: FilterWorker, now: FilterWorker, run: StageRun, shards: Sequence[StoredShard]) -> None:
    """Gives both workers the thresholds of their kept shares: `old` the current thresholds, `now` the new ones."""
    old.rules = with_found(old.rules, read_found(run.storage))
    readers = [shard_reader(run.storage, f"report/{shard.task.key}.parquet") for shard in shards]
    found = find_thresholds(now.rules, readers)
    now.rules = with_found(now.rules, {name: each.threshold for name, each in found.items()})


def _require_scores(old: FilterWorker, now: FilterWorker, folder: str, command: str) -> None:
    """Raises ConfigError if a document that has no score, because it failed an earlier rule, would need one under the new thresholds."""
    before, after = ({rule.rule.name: rule.rule for rule in worker.rules} for worker in (old, now))
    steps: set[str] = set()
    for step in now.steps:
        changed = [rule for rule in now.rules + old.rules if rule.step in steps and before.get(rule.rule.name) != after.get(rule.rule.name)]
        if step.step.only_passing and changed:
            raise ConfigError(
                f"{command}: {step.name} scores only documents that pass the rules before it (only_passing), so another "
                f"{changed[0].rule.name} asks for new scores: "
                f"{stage_command(folder, 'filter', None, '--redo', '--set', f'filter.thresholds.{changed[0].rule.name}=...')}"
            )
        steps.add(step.name)


def _retune_shard(worker: FilterWorker, run: StageRun, shard: StoredShard) -> TaskRow:
    """Decides about one shard, publishes the changed files, and returns the shard's new row of the manifest."""
    key, row = shard.task.key, shard.row
    data_path, report_path = f"data/{key}.parquet", f"report/{key}.parquet"
    report = read_table(run.storage, report_path)
    values = {name: report[name].combine_chunks() for name in {rule.rule.column for rule in worker.rules}}
    failed = decide(worker.rules, values, report.num_rows)
    before, now = _mask(report["kept"]), _mask(pc.equal(pc.list_value_length(failed), 0))
    outputs = {output.path: output for output in row.outputs}
    lengths = np.where(now, report["chars_out"].to_numpy(), 0)
    if (before != now).any():
        data, lengths[now & ~before] = _documents(worker, run, shard.task, report, before, now)
        outputs[data_path] = publish(run.storage, data_path, data)
    report = decided(report, failed, lengths).replace_schema_metadata(rules_metadata(worker.rules))
    outputs[report_path] = publish(run.storage, report_path, report)
    kept = int(now.sum())
    return replace(
        row,
        identity=shard.identity,
        config=run.config_digest,
        kept=kept,
        dropped=report.num_rows - kept,
        outputs=[outputs[path] for path in sorted(outputs)],
        failed=dict(sorted(failed_counts(report).items())),
    )


def _mask(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False), bool)


def _documents(
    worker: FilterWorker, run: StageRun, task: Task, report: pa.Table, before: npt.NDArray[np.bool_], now: npt.NDArray[np.bool_]
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Returns the kept documents in order, and the new lengths (characters) of the documents that come back."""
    stayed = read_table(run.storage, f"data/{task.key}.parquet").filter(pa.array(now[before]))
    back = np.nonzero(now & ~before)[0]
    if not len(back):
        return stayed, np.zeros(0, np.int64)
    (shard,) = task.inputs
    documents = read_table(run.run, shard.path).replace_schema_metadata(None)
    with open_parquet(run.run, shard.path) as file:
        data_schema, _ = worker.schemas(file.schema_arrow.remove_metadata())
    returned = Rewriter(worker).at(documents, report, pa.array(back)).select(data_schema.names).cast(data_schema)
    order = np.argsort(np.concatenate([np.nonzero(now & before)[0], back]), kind="stable")
    lengths = pc.utf8_length(returned["text"]).to_numpy().astype(np.int64)
    return pa.concat_tables([stayed.cast(data_schema), returned]).take(pa.array(order)), lengths
