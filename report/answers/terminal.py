"""The report's main tables on a terminal, a summary after each stage, and the last lines of a run."""

import shlex
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corpusmill.pipeline.run import StageResult
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.live.status import unit_of
from corpusmill.report.queries.classifiers import classifiers_table
from corpusmill.report.queries.duplicates import Earlier, FullClusters
from corpusmill.report.queries.inside import Contamination, Cuts, TopLines
from corpusmill.report.queries.rules import Decisions, read_decisions
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.thresholds import Headline, headline
from corpusmill.report.queries.tokens import judgement_tables, packings
from corpusmill.report.queries.training import read_samples
from corpusmill.report.query.run import Run
from corpusmill.report.read import DATA_STAGES, RunReader
from corpusmill.report.tables import cell, limit, millions, number, share, show, table

#: Lines, sets and earlier runs that are shown.
TOP_LINES, MOST = 5, 12
TEXT = 200


def dedup_tables(summary: Summary) -> list[Table | None]:
    """Full clusters, earlier runs, what was cut and the lines cut most often, contamination."""
    found = summary
    return [
        full_clusters_table(found.full_clusters) if found.full_clusters else None,
        earlier_table(found.earlier) if found.earlier else None,
        cuts_table(found.cuts) if found.cuts else None,
        top_lines_table(found.top_lines) if found.top_lines else None,
        contamination_table(found.contamination) if found.contamination else None,
    ]


def full_clusters_table(found: FullClusters) -> Table:
    limit = f" (max_cluster {found.limit:,})" if found.limit is not None else ""
    made = table(f"Full clusters{limit}", "clusters", ">documents like theirs that stay")
    made.add_row(number(found.clusters), number(found.documents))
    return made


def earlier_table(found: Earlier) -> Table:
    made = table("Earlier runs of the index", "run", ">copies removed here", ">replaced there", ">stay again there")
    for run in found.runs[:MOST]:
        made.add_row(cell(run.name, 40), number(run.copies), number(run.replaced), number(run.restored))
    if len(found.runs) > MOST:
        made.add_row(f"{len(found.runs) - MOST:,} more runs", "", "", "")
    return made


def cuts_table(found: list[Cuts]) -> Table:
    made = table("Repeats cut inside documents that stay", "what", ">documents", ">cut", ">characters", ">of all", ">dropped")
    for cuts in found:
        counts = number(cuts.documents), number(cuts.cut), number(cuts.characters), share(cuts.characters, cuts.before)
        made.add_row(cuts.kind, *counts, number(cuts.dropped))
    return made


def top_lines_table(found: TopLines) -> Table:
    made = table(f"The most frequent {found.unit}s that were cut", f"{safe_line(found.unit, 20)}", ">documents", ">crawl files")
    for row in found.rows[:TOP_LINES]:
        made.add_row(cell(row["text"], TEXT), number(row["documents"]), number(row["sources"]))
    return made


def contamination_table(found: Contamination) -> Table:
    done = found.done()
    title = f"Contamination: {found.documents:,} of {found.seen:,} documents hold items of evaluation sets{f' ({done})' if done else ''}"
    made = table(title, "set", ">documents", ">dropped")
    for name, documents, dropped in found.sets[:MOST]:
        made.add_row(cell(name, 60), number(documents), number(dropped))
    if not found.sets:
        made.add_row("none found", "0", "0")
    return made


def show_next_steps(folder: str, summary: Summary, console: Console) -> None:
    """Sentences and commands, last on the screen; nothing where no stage has dropped anything."""
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
    yield f"Stage {d.stage} dropped {d.dropped:,} of {d.rows:,} documents ({share(d.dropped, d.rows)})."
    counts = f"{most.fired:,} documents fail it ({share(most.fired, d.rows)}), {most.alone:,} of them no other rule"
    yield f"The rule that removed most: {_named(found, most.name)}. {counts}."
    if found.deciding is not None and found.deciding is not most:
        deciding = found.deciding
        yield f"The threshold that alone decides most: {_named(found, deciding.name)}. {deciding.alone:,} documents fail it alone."


def _named(found: Headline, name: str) -> str:
    """A rule with its condition and what it means."""
    rule, meaning = found.decisions.rule(name), found.decisions.meanings.get(name)
    condition = f" ({safe_line(rule.column, 60)} {limit(rule)})" if rule is not None else ""
    return f"{safe_line(name, 80)}{condition}" + (f": {safe_line(meaning, 300)}" if meaning else "")


def _commands(root: str, found: Headline) -> Iterator[tuple[str, str]]:
    rule = found.deciding or found.most
    name, known = shlex.quote(safe_line(rule.name, 80)), found.decisions.rule(rule.name)
    near = " --near" if known is not None and isinstance(known.threshold, int | float) else ""
    stage = "" if known is not None else f" --stage {found.decisions.stage}"
    yield "Documents that it dropped", f"sample {root}{stage} --rule {name}{' --alone' if rule.alone else ''}{near}"
    yield "All about one", f"why {root} URL (a part of a URL: corpusmill inspect {root} --url PART)"
    if found.line is not None:
        yield f"Without it {number(found.more)} more are kept", f"retune {root} --set {shlex.quote(safe_line(found.line, 200))} --dry-run"


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
    for row in summary.rows:
        name = row.stage if row.status == "complete" else f"{row.stage} (unfinished)"
        shares = share(row.documents_out, row.documents_in), share(row.documents_out, summary.rows[0].documents_in)
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
    made.add_row(*(number(n) for n in (c.count, c.documents, max(c.sizes, default=0), *removed.values())))
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
    for row in summary.times.rows if summary.times else ():
        rows, size = row["rows_a_second"], row["mb_a_second"]
        speed = f"{rows:,.0f}" if rows else "", f"{size:,.1f}" if size else ""
        made.add_row(cell(row["stage"], 12), cell(row["phase"], 24), f"{row['seconds']:,.1f}", *speed, number(row["peak_mb"]))
    return made


def stage_summary(folder: str, result: StageResult, console: Console) -> None:
    """Prints what a stage did, right after it: documents in, kept, dropped, the top rules, time, speed, memory."""
    reader = RunReader(folder)
    if not result.performed:
        console.print(Text(f"{result.name}: finished before, nothing to do", style="dim"))
        return
    head = Text(result.name, style="bold")
    decisions = None
    if result.name in DATA_STAGES:
        with Run(reader) as run:
            decisions = read_decisions(run, result.name)
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
