"""Shows the report's main tables on a terminal, a summary after each stage, and the last lines of a run."""

import shlex
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.events import Event
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.live.status import unit_of
from corpusmill.report.queries.origins import dropped_languages
from corpusmill.report.queries.rules import Decisions, read_decisions
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.thresholds import Headline, ThresholdStep, headline
from corpusmill.report.queries.training import plain_scores, read_samples
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES, NO_PAGE, RunReader
from corpusmill.report.tables import cell, limit, millions, number, share, show, show_notes, table

#: Limits: rules of a table and after a stage; warnings; scores.
TOP_RULES, TOP_RULES_STAGE = 12, 4
MAX_WARNINGS, MAX_SCORES = 12, 24
#: Warnings and rules in the last lines of a run.
MOST_REPEATED = 3


def render_report(folder: str, console: Console) -> None:
    """Prints the funnel, the rules that removed most, duplicates, tokens, training, scores and times, within 80 columns."""
    summary = read_summary(folder, deep=False)
    show_notes(summary.warnings[:MAX_WARNINGS], console, "Warning", "bold yellow")
    if len(summary.warnings) > MAX_WARNINGS:
        console.print(f"and {len(summary.warnings) - MAX_WARNINGS:,} more warnings (the page has them)")
    for made in _tables(summary):
        if made.row_count:
            console.print()
            show(made, console)
    if not summary.decisions:
        console.print("No stage has a report yet.")
    show_next_steps(folder, summary, console)


def _tables(summary: Summary) -> Iterator[Table]:
    """Yields the main tables in order; the page has all. A table without rows is not shown."""
    yield _funnel(summary)
    yield from (_rules(decisions) for decisions in summary.decisions.values())
    yield _duplicates(summary)
    yield _tokens(summary)
    yield _training(summary)
    rows = ([Text(safe_line(name, 40)), *(cell(value, 12) for value, _ in of)] for name, of in plain_scores(summary.scores)[:MAX_SCORES])
    yield table("Evaluation", "score", *(f">{safe_line(model, 12)}" for model in summary.scores.models), rows=rows)
    yield _times(summary)


def _funnel(summary: Summary) -> Table:
    made = table("Funnel (pages, then documents)", "stage", ">in", ">kept", ">dropped", ">kept %", ">of all", ">characters", ">tokens")
    for row in summary.rows:
        name = row.stage if row.status == "complete" else f"{row.stage} (unfinished)"
        shares = share(row.documents_out, row.pages_in), share(row.documents_out, summary.rows[0].pages_in)
        counts = number(row.pages_in), number(row.documents_out), number(row.dropped)
        made.add_row(cell(name), *counts, *shares, millions(row.chars_out), millions(row.tokens))
    return made


def _rules(decisions: Decisions) -> Table:
    came, other = decisions.rows - decisions.no_pages, decisions.no_pages
    what = f"{decisions.dropped - other:,} of {counted(came, 'page' if other else unit_of(decisions.stage))}"
    fired = [rule for rule in decisions.by_decision() if not (other and rule.name == NO_PAGE)]
    rows = [[cell(r.name, 60), r.fired, share(r.fired, came), r.alone] for r in fired[:TOP_RULES]]
    rows += [[Text(f"{len(fired) - TOP_RULES} more rules", style="dim"), "", "", ""]] if fired[TOP_RULES:] else []
    return table(f"{decisions.stage}: why {what} were dropped", "rule", ">fired", ">share", ">alone", rows=rows)


def _duplicates(summary: Summary) -> Table:
    rows, removed = [], {"exact": 0, "near": 0}
    if summary.duplicates:
        c = summary.duplicates.clusters
        removed = {"exact": c.exact, "near": c.near, **({"by URL": c.url} if c.url else {})}
        rows = [[c.count, c.documents, max(c.sizes, default=0), *removed.values()]]
    return table("Duplicates", "clusters", ">documents in them", ">largest", *(f">{name} removed" for name in removed), rows=rows)


def _tokens(summary: Summary) -> Table:
    made = table("Tokens", "split", ">documents", ">tokens", ">bytes/token", ">shards")
    for split, t in summary.tokens.items():
        tokens, size = t.get("tokens") or 0, t.get("utf8_bytes") or 0
        counts = number(t.get("documents") or 0), number(tokens), f"{size / tokens:.2f}" if tokens else ""
        made.add_row(split, *counts, number(len(t.get("shards") or [])))
    return made


def _training(summary: Summary) -> Table:
    made = table("Training", "stage", ">steps", ">first loss", ">last loss", ">bits per byte", ">tokens/s")
    for training in summary.training:
        loss, bits = (curve.values if (curve := training.curve(name)) else [] for name in ("loss", "validation_bits_per_byte"))
        speed = training.speed.tokens_per_second if training.speed else None
        shown = loss[0] if loss else None, loss[-1] if loss else None, bits[-1] if bits else None, speed and round(speed)
        made.add_row(training.stage, number(training.steps), *(cell(value, 12) for value in shown))
    return made


def _times(summary: Summary) -> Table:
    rows = []
    for row in summary.times.rows if summary.times else ():
        speeds = [f"{value:,.{digits}f}" if value else "" for value, digits in ((row["rows_a_second"], 0), (row["mb_a_second"], 1))]
        rows.append([cell(row["stage"], 12), cell(row["phase"], 24), f"{row['seconds']:,.1f}", *speeds, row["peak_mb"]])
    return table("Time and memory", "stage", "phase", ">seconds", ">rows/s", ">MB/s", ">peak MB", rows=rows)


# ---- what to ask next ----------------------------------------------------------------------------------


def show_next_steps(folder: str, summary: Summary, console: Console) -> None:
    """Prints advice and commands at the end of the report; nothing where no stage has dropped anything."""
    found = headline(summary.decisions)
    if found is None:
        return
    console.print()
    for sentence in _sentences(found):
        console.print(Text(sentence))
    for what, command in _commands(shlex.quote(safe_line(folder, 300)), found):
        console.print(Text(f"{what}: corpusmill {command}", style="dim"), soft_wrap=True)


def _sentences(found: Headline) -> Iterator[str]:
    d, most = found.decisions, found.most
    dropped, rows = d.dropped - d.no_pages, d.rows - d.no_pages
    yield f"Stage {d.stage} dropped {dropped:,} of {rows:,} documents ({share(dropped, rows)})."
    counts = f"{most.fired:,} documents fail it ({share(most.fired, d.rows)}), {most.alone:,} of them no other rule"
    yield f"The rule that removed most: {_named(found, most.name)}. {counts}."
    if found.deciding and (deciding := found.deciding[0].rule) is not most:
        yield f"The threshold that alone decides most: {_named(found, deciding.name)}. {deciding.alone:,} documents fail it alone."


def _named(found: Headline, name: str) -> str:
    """Returns a rule with its condition and its meaning."""
    rule, meaning = found.decisions.rule(name), found.decisions.meanings.get(name)
    condition = f" ({safe_line(rule.column, 60)} {limit(rule)})" if rule is not None else ""
    return f"{safe_line(name, 80)}{condition}" + (f": {safe_line(meaning, 300)}" if meaning else "")


def _commands(root: str, found: Headline) -> Iterator[tuple[str, str]]:
    numeric = (
        step for step in found.deciding if (known := found.decisions.rule(step.rule.name)) and isinstance(known.threshold, int | float)
    )
    first = next(numeric, found.deciding[0] if found.deciding else ThresholdStep(found.most))  # a number can be moved by a step
    rule = first.rule
    name, known = shlex.quote(safe_line(rule.name, 80)), found.decisions.rule(rule.name)
    near = " --near" if known is not None and isinstance(known.threshold, int | float) else ""
    stage = "" if known is not None else f" --stage {found.decisions.stage}"
    yield "Documents that it dropped", f"sample {root}{stage} --rule {name}{' --alone' if rule.alone else ''}{near}"
    yield "All about one", f"why {root} URL-OR-WORDS"
    if first.line is not None:
        yield f"Without it {number(first.more)} more are kept", f"retune {root} --set {shlex.quote(safe_line(first.line, 200))} --dry-run"


# ---- during a run --------------------------------------------------------------------------------------


def stage_summary(folder: str, end: Event, console: Console) -> None:
    """Prints the summary of a finished stage: documents in, kept and dropped, the top rules, time, speed, memory. `end`: its last event."""
    reader, stage = RunReader(folder), end.stage
    if not end.fields["performed"]:
        console.print(Text(f"{stage}: finished before, nothing to do", style="dim"))
        return
    head = Text(stage, style="bold")
    decisions = None
    if stage in DATA_STAGES:
        with Run(reader) as run:
            decisions = read_decisions(run, stage)
    if decisions is not None:
        other = decisions.no_pages
        came = decisions.rows - other
        beside = f" (and {counted(other, 'record')} without a page)" if other else ""
        head.append(
            f"  {counted(came, 'page' if other else unit_of(stage))} in{beside}, {counted(decisions.kept, 'document')} kept "
            f"({share(decisions.kept, came)}), {came - decisions.kept:,} dropped",
            style="not bold",
        )
    console.print(head)
    if decisions is not None and decisions.by_removal() and not {"failed", "left out by"} & set(end.fields["summary"]):
        rules = [f"{safe_line(r.name, 40)} {r.fired:,}" for r in decisions.by_removal()[:TOP_RULES_STAGE]]
        console.print(Text(f"  failed: {', '.join(rules)}"))
    for label, text in end.fields["summary"].items():
        console.print(Text(f"  {safe_line(label, 40)}: {safe_line(text, 200)}"))
    warnings = [sentence for task in reader.stages[stage].tasks for sentence in task.warnings]
    show_notes(warnings[:3], console, "  warning", limit=300)
    if warnings[3:]:
        console.print(Text(f"  and {len(warnings) - 3:,} more warnings (the report has them)", style="dim"))
    most = None if decisions is None else decisions.rows - decisions.no_pages
    console.print(Text(f"  {_speed(reader, stage, end.fields['work_seconds'], most)}", style="dim"))


def _speed(reader: RunReader, stage: str, seconds: float, most: int | None) -> str:
    """Returns the stage's seconds in this call, with the latest speed and memory of its phases in metrics.jsonl. `most`: the pages
    or documents that came in, where a report counts them."""
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for row in reversed(reader.json_lines("metrics.jsonl")):
        if row.get("stage") != stage or row.get("phase") in seen:
            break
        seen.add(str(row.get("phase")))
        rows.append(row)
    counted = stage in (*DATA_STAGES, "tokens")  # in other stages, rows are not documents
    documents = max((row.get("rows_in") or 0 for row in rows), default=0)
    documents = documents if most is None else min(most, documents)
    size = max((row.get("bytes_in") or 0 for row in rows), default=0)
    parts = [f"{seconds:,.1f} s"]
    if counted and documents and seconds:
        parts.append(f"{documents / seconds:,.0f} documents/s")
    if counted and size and seconds:
        parts.append(f"{size / seconds / 1e6:,.1f} MB/s")
    peak = max((row.get("peak_mb") or 0 for row in rows), default=0)
    return ", ".join([*parts, f"peak {peak:,} MB"] if peak else parts)


def closing_lines(folder: str, report: str, console: Console) -> None:
    """Prints the last lines of a run: a sample of its model, what was damaged or dropped most, the report's path, and advice."""
    reader = RunReader(folder)
    samples = read_samples(reader)
    if samples:
        model = samples[-1][0]
        sample = next(s for name, s in samples if name == model)
        console.print()
        console.print(Text(f"What the {safe_line(model, 20)} model says:", style="bold"))
        for name, text in sample:
            if name in ("prompt", "text"):
                console.print(Text(f"  {name}: ", style="dim") + Text(safe_line(str(text), 400)))
    console.print()
    damaged = [sentence for task in reader.stages["ingest"].tasks for sentence in task.warnings]
    show_notes(damaged[:MOST_REPEATED], console, "Warning", limit=300)
    if damaged[MOST_REPEATED:]:
        console.print(Text(f"and {len(damaged) - MOST_REPEATED:,} more warnings of ingest (the report has them)"))
    with Run(reader) as run:
        decisions, languages = read_decisions(run, "filter"), dropped_languages(run)
    if decisions is not None and decisions.dropped:
        of = {"language": f" ({languages})" if languages else ""}
        most = decisions.by_removal()[:MOST_REPEATED]
        rules = ", ".join(f"{safe_line(rule.name, 60)} {rule.fired:,}{of.get(rule.name, '')}" for rule in most)
        console.print(Text(f"The filters dropped {decisions.dropped:,} of {counted(decisions.rows, 'document')}, most by {rules}."))
        console.print(Text(f"Read them: corpusmill explore {shlex.quote(folder)} --open"))
    console.print(Text(f"The report: {report}"))
    console.print(Text(f"Why a document was kept or dropped: corpusmill why {shlex.quote(folder)} URL-OR-WORDS"))
