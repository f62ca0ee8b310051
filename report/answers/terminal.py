"""The report's main tables on a terminal, a summary after each stage, and the last lines of a run."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.run import StageResult
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.answers.dedup_tables import dedup_tables
from corpusmill.report.answers.next_steps import show_next_steps
from corpusmill.report.facts.classifiers import classifiers_table
from corpusmill.report.facts.decisions import Decisions, read_decisions
from corpusmill.report.facts.funnel import packings
from corpusmill.report.facts.histogram import number
from corpusmill.report.facts.summary import Summary, read_summary, stage_times
from corpusmill.report.facts.tokenizers import judgement_tables
from corpusmill.report.facts.training import read_samples
from corpusmill.report.live.status import unit_of
from corpusmill.report.read import DATA_STAGES, RunReader
from corpusmill.report.tables import cell, millions, share, show, table

TOP_RULES = 12
TOP_RULES_STAGE = 4
MAX_WARNINGS = 12
MAX_SCORES = 24


def render_report(folder: str, console: Console) -> None:
    """Prints the funnel, the rules that removed most, duplicates, tokens, training and scores, within 80 columns."""
    summary = read_summary(folder, deep=False)
    for sentence in summary.warnings[:MAX_WARNINGS]:
        console.print(Text("Warning: ", style="bold yellow") + Text(safe_line(sentence, 400)))
    if len(summary.warnings) > MAX_WARNINGS:
        console.print(f"and {len(summary.warnings) - MAX_WARNINGS:,} more warnings (the page has them)")
    tables = [
        _funnel(summary),
        *(_rules(d) for d in summary.decisions.values() if d.by_removal()),
        classifiers_table(summary.classifiers),
        _duplicates(summary),
    ]
    judged = judgement_tables(summary.tokenizer) if summary.tokenizer else []
    tables += [
        *dedup_tables(summary),
        *judged,
        _tokens(summary),
        _mixture(summary),
        _packing(summary),
        _training(summary),
        _scores(summary),
        _benchmarks(summary),
        _times(summary),
    ]
    for made in tables:
        if made is not None and made.row_count:
            console.print()
            show(made, console)
    if not summary.decisions:
        console.print("No stage has a report yet.")
    show_next_steps(folder, summary, console)


def _funnel(summary: Summary) -> Table:
    made = table(
        "Funnel (records into ingest, then documents)", "stage", ">in", ">kept", ">dropped", ">kept %", ">of all", ">characters", ">tokens"
    )
    for row in summary.funnel:
        name = row.stage if row.status == "complete" else f"{row.stage} (unfinished)"
        shares = share(row.documents_out, row.documents_in), share(row.documents_out, summary.funnel[0].documents_in)
        counts = number(row.documents_in), number(row.documents_out), number(row.dropped)
        made.add_row(cell(name), *counts, *shares, millions(row.chars_out), millions(row.tokens))
    return made


def _rules(decisions: Decisions) -> Table:
    what = f"{decisions.dropped:,} of {decisions.rows:,} {unit_of(decisions.stage)}"
    made = table(f"{decisions.stage}: why {what} were dropped", "rule", ">fired", ">share", ">alone")
    fired = decisions.by_removal()
    for rule in fired[:TOP_RULES]:
        made.add_row(cell(rule.name, 60), number(rule.fired), share(rule.fired, decisions.rows), number(rule.alone))
    if fired[TOP_RULES:]:
        made.add_row(Text(f"{len(fired) - TOP_RULES} more rules", style="dim"), "", "", "")
    return made


def _duplicates(summary: Summary) -> Table | None:
    found = summary.duplicates
    if found is None:
        return None
    c = found.clusters
    removed = {"exact": c.exact, "near": c.near, **({"by URL": c.url} if c.url else {})}
    made = table("Duplicates", "clusters", ">documents in them", ">largest", *(f">{name} removed" for name in removed))
    made.add_row(*(number(n) for n in (c.sizes.total(), c.documents, max(c.sizes, default=0), *removed.values())))
    return made


def _tokens(summary: Summary) -> Table:
    made = table("Tokens", "split", ">documents", ">tokens", ">bytes/token", ">shards")
    for split, t in summary.tokens.items():
        tokens, size = t.get("tokens") or 0, t.get("utf8_bytes") or 0
        counts = number(t.get("documents") or 0), number(tokens), f"{size / tokens:.2f}" if tokens else ""
        made.add_row(split, *counts, number(len(t.get("shards") or [])))
    return made


def _mixture(summary: Summary) -> Table:
    made = table("Mixture for training", "component", ">tokens there", ">wanted", ">taken", ">epochs", ">short of it")
    for found in summary.mixture:
        counts = (number(count) for count in (found.there, found.wanted, found.tokens))
        made.add_row(cell(safe_line(found.name, 40)), *counts, f"{found.epochs:.2f}", number(found.short) if found.short else "")
    return made


def _packing(summary: Summary) -> Table:
    made = table("Documents packed into rows", "split", ">places in a row", ">rows", ">places left empty", ">share")
    for found in packings(summary.tokens):
        made.add_row(found.split, *(number(n) for n in (found.length, found.rows, found.padding)), f"{found.waste:.3%}")
    return made


def _training(summary: Summary) -> Table:
    made = table("Training", "stage", ">steps", ">first loss", ">last loss", ">bits per byte", ">tokens/s")
    for training in summary.training:
        loss, bits = (curve.values if (curve := training.curve(name)) else [] for name in ("loss", "validation_bits_per_byte"))
        speed = training.speed.tokens_per_second if training.speed else None
        shown = loss[0] if loss else None, loss[-1] if loss else None, bits[-1] if bits else None, speed and round(speed)
        made.add_row(training.stage, number(training.steps), *(cell(value, 12) for value in shown))
    return made


def _scores(summary: Summary) -> Table:
    made = table("Evaluation", "score", *(f">{safe_line(model, 12)}" for model in summary.scores.models))
    for name, values in summary.scores.rows[:MAX_SCORES]:
        made.add_row(cell(name, 40), *(cell(value, 12) for value in values))
    return made


def _benchmarks(summary: Summary) -> Table:
    """Of each task the metric to compare models by; the page has the others."""
    models = summary.benchmarks.models
    made = table("Benchmarks", "task", *(f">{safe_line(model, 12)}" for model in models), ">chance", ">items", ">in corpus")
    for task in summary.benchmarks.tasks:
        scores = task.scores[task.metric]
        values = (scores[model].text(task.metric) if model in scores else "" for model in models)
        chance = f"{task.chance:.1%}" if task.chance is not None else ""
        found = number(task.found) if task.searched else ""
        made.add_row(Text(safe_line(task.title, 16), no_wrap=True), *values, chance, number(task.items), found)
    return made


def _times(summary: Summary) -> Table:
    made = table("Time and memory", "stage", "phase", ">seconds", ">rows/s", ">MB/s", ">peak MB")
    for row in stage_times(summary.measures):
        seconds, rows, size = row["seconds"], row["rows_in"], row["bytes_in"]
        made.add_row(
            cell(row["stage"], 12), cell(row["phase"], 24), f"{seconds:,.1f}", f"{rows / seconds:,.0f}" if seconds and rows else "",
            f"{size / seconds / 1e6:,.1f}" if seconds and size else "", number(row["peak_mb"]),
        )  # fmt: skip
    return made


def stage_summary(folder: str, result: StageResult, console: Console) -> None:
    """Prints what a stage did, right after it: documents in, kept, dropped, the top rules, time, speed, memory."""
    reader = RunReader(folder)
    if not result.performed:
        console.print(Text(f"{result.name}: finished before, nothing to do", style="dim"))
        return
    head = Text(result.name, style="bold")
    decisions = read_decisions(reader, result.name, histograms=False, samples=False) if result.name in DATA_STAGES else None
    if decisions is not None:
        head.append(
            f"  {decisions.rows:,} {unit_of(result.name)} in, {decisions.kept:,} documents kept ({share(decisions.kept, decisions.rows)}), "
            f"{decisions.dropped:,} dropped",
            style="not bold",
        )
    console.print(head)
    if decisions is not None and decisions.by_removal() and not {"failed", "left out by"} & set(result.details):
        rules = [f"{safe_line(r.name, 40)} {r.fired:,}" for r in decisions.by_removal()[:TOP_RULES_STAGE]]
        console.print(Text(f"  top rules: {', '.join(rules)}"))
    for label, text in result.details.items():
        console.print(Text(f"  {safe_line(label, 40)}: {safe_line(text, 200)}"))
    warnings = [sentence for task in reader.stages[result.name].tasks for sentence in task.warnings]
    for sentence in warnings[:3]:
        console.print(Text("  warning: ", style="yellow") + Text(safe_line(sentence, 300)))
    if warnings[3:]:
        console.print(Text(f"  and {len(warnings) - 3:,} more warnings (the report has them)", style="dim"))
    console.print(Text(f"  {_speed(reader, result)}", style="dim"))


def _speed(reader: RunReader, result: StageResult) -> str:
    """Seconds of this call, with the speed and memory that metrics.jsonl has for the phases it ran last."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in reversed(reader.json_lines("metrics.jsonl")):
        if row.get("stage") != result.name or row.get("phase") in seen:
            break
        seen.add(str(row.get("phase")))
        rows.append(row)
    counted = result.name in (*DATA_STAGES, "tokens")  # elsewhere rows are no documents
    documents = max((row.get("rows_in") or 0 for row in rows), default=0)
    size = max((row.get("bytes_in") or 0 for row in rows), default=0)
    parts = [f"{result.seconds:,.1f} s"]
    if counted and documents and result.seconds:
        parts.append(f"{documents / result.seconds:,.0f} documents/s")
    if counted and size and result.seconds:
        parts.append(f"{size / result.seconds / 1e6:,.1f} MB/s")
    peak = max((row.get("peak_mb") or 0 for row in rows), default=0)
    return ", ".join([*parts, f"peak {peak:,} MB"] if peak else parts)


def closing_lines(folder: str, report: str, console: Console) -> None:
    """The last lines of a run: a sample of what its model says, where the report is, and what to ask next."""
    samples = read_samples(RunReader(folder))
    if samples:
        model = samples[-1][0]
        sample = next(s for name, s in samples if name == model)
        console.print()
        console.print(Text(f"What the {safe_line(model, 20)} model says:", style="bold"))
        for name, text in sample:
            if name in ("prompt", "text"):
                console.print(Text(f"  {name}: ", style="dim") + Text(safe_line(str(text), 400)))
    console.print()
    console.print(Text(f"The report: {report}"))
    console.print(Text(f"Why a document was kept or dropped: corpusmill why {folder} URL"))
