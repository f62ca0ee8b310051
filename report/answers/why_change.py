"""Finds the change of the recipe by which a stage keeps a document, and how far its values are from the thresholds."""

import math
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from corpusmill.filters.relation import OFF, Report
from corpusmill.filters.rules import fails
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.safe import safe_line
from corpusmill.report.queries.ask import columns
from corpusmill.report.queries.rules import shares_moved
from corpusmill.report.query.run import Run
from corpusmill.report.read import ReportRule, RunReader
from corpusmill.report.tables import number

#: Significant digits of a proposed threshold.
DIGITS = 4
#: The commands that apply other thresholds: without measuring again, or with the filter stage.
RETUNE, MEASURE = "retune", "filter"
#: An option of the stage in the meaning of a rule: another value of it lets the document pass.
OPTION = re.compile(r"\b(?:extraction|mixture)\.\w+")
COMPARED = ("<", "<=", ">", ">=")


@dataclass
class RecipeChange:
    """A change that keeps a document. `settings`: by key of the recipe (`filter.thresholds.RULE`). `command`: applies them. `sentences`:
    further advice. `others`: more documents that these settings keep in this stage (None: unknown)."""

    settings: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    sentences: list[str] = field(default_factory=list)
    others: int | None = None


def distance(rule: ReportRule, value: Any) -> float | None:
    """Returns the absolute distance of a value from a threshold; None if one is not a number."""
    threshold = rule.threshold
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (value, threshold))
    return abs(value - threshold) if numbers and rule.comparison in COMPARED and math.isfinite(value) else None


def margin(rule: ReportRule, value: Any, failed: bool) -> str:
    """Says whether a value fails, and its distance from the threshold: `fails by 17`."""
    far = distance(rule, value)
    return ("fails" if failed else "passes") + ("" if far is None else f" by {number(far)}")


def change(run: Run, stage: str, row: dict[str, Any]) -> RecipeChange | None:
    """Returns the change that keeps the document of a report row; None if it was kept."""
    if row.get("kept") is not False or not row.get("failed"):
        return None
    if stage == "filter":
        return _thresholds(run, row)
    made, meanings = RecipeChange(), run.meanings(stage)
    for rule in row["failed"]:
        if options := OPTION.findall(meanings.get(rule, "")):
            decides = " or ".join(f"{stage}.{option}" for option in options)
            made.sentences.append(f"{safe_line(rule, 40)}: another value of {safe_line(decides, 300)}.")
        else:
            made.sentences += _ingest(run, rule, row, made.settings) if stage == "ingest" else _dedup(run, rule, row, made.settings)
    if made.settings and not made.sentences:
        made.command = _command(stage, run, made.settings)
    return made


def _command(what: str, run: Run, settings: dict[str, Any]) -> str:
    sets = " ".join(f"--set {shlex.quote(f'{safe_line(key, 200)}={value}')}" for key, value in settings.items())
    root = run.reader.storage.root
    return f"corpusmill {RETUNE} {shlex.quote(root)} {sets}" if what == RETUNE else f"{stage_command(root, what, None, '--redo')} {sets}"


# ---- filter -------------------------------------------------------------------------------------------------


def _thresholds(run: Run, row: dict[str, Any]) -> RecipeChange:
    made, rules = RecipeChange(), run.rules("filter")
    for name in row["failed"]:
        known = [rule for rule in rules if rule.rule == name]
        if not known:
            made.sentences.append(f"{safe_line(name, 80)} has no threshold: change or remove its step to keep the document.")
            continue
        made.settings[f"filter.thresholds.{name}"] = passing(known[0], row.get(known[0].column))
        if known[0].comparison == "not in":
            value = safe_line(str(row.get(known[0].column)), 40)
            made.sentences.append(
                f"{safe_line(name, 80)} compares with a list: the document also passes with {value!r} in the step's list."
            )
    if made.settings:
        command = decides_again(run.reader, rules, row["failed"])
        made.command = _command(command, run, made.settings)
        moved = [safe_line(rule.rule, 80) for rule in shares_moved(rules, row["failed"])]
        if moved:
            counts = "; with --dry-run the command counts what is kept then" if command == RETUNE else ""
            made.sentences.append(
                f"perhaps that is not enough: {', '.join(moved)} keeps a share of the documents that pass the other rules, "
                f"so its threshold moves, too{counts}."
            )
        elif command == RETUNE and len(made.settings) == len(set(row["failed"])):
            made.others = _others(run, row["failed"], made.settings) - 1
    return made


def passing(rule: ReportRule, value: Any) -> Any:
    """Returns the threshold nearest to the rule's own, with few digits, that `value` passes; `off` where there is none."""
    if distance(rule, value) is None:
        return OFF
    upward = rule.comparison in (">", ">=")
    if rule.comparison in ("<", ">") and float(value).is_integer():
        return int(value)
    step = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1) if value else 10.0**-DIGITS
    step = max(step, math.ulp(0.0))  # the smallest floats have no smaller step
    rounded = (math.ceil if upward else math.floor)(value / step) * step
    rounded = float(f"{rounded:.{DIGITS}g}")
    while fails(rule.comparison, value, rounded):
        rounded = float(f"{rounded + (step if upward else -step):.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _others(run: Run, failed: list[str], settings: dict[str, Any]) -> int:
    """Counts the dropped documents that the new thresholds of these rules keep."""
    report = Report("filter_report", columns(run, "filter_report"))
    moves = {name: settings[f"filter.thresholds.{name}"] for name in failed}
    decided = report.decided([(rule.rule, rule.column, rule.comparison) for rule in run.rules("filter")], moves)
    return int(run.rows(f"SELECT count(*) FROM {decided} WHERE kept_now AND NOT kept")[0][0])


def decides_again(reader: RunReader, rules: Sequence[ReportRule], moved: Collection[str]) -> str:
    """Returns the command that applies other thresholds of the rules `moved`. `rules`: all rules of the filter stage."""
    late = reader.stages["filter"].status != "complete" or scored_late(reader, rules, moved) is not None
    return MEASURE if late else RETUNE


def scored_late(reader: RunReader, rules: Sequence[ReportRule], moved: Collection[str]) -> str | None:
    """Returns the first step with `only_passing` that comes after a moved rule: it has scored only documents that passed that rule."""
    changed = {rule.step for rule in rules if rule.rule in moved}
    before, seen = False, dict[str, int]()
    for kind, options in reader.steps():
        if before and options.get("only_passing"):
            return kind
        seen[kind] = seen.get(kind, 0) + 1
        suffix = f"_{seen[kind]}" if seen[kind] > 1 else ""
        before = before or any(re.fullmatch(rf"{re.escape(kind)}(:.*)?{suffix}", step) for step in changed)
    return None


# ---- the other stages ---------------------------------------------------------------------------------------


def _ingest(run: Run, rule: str, row: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    """Yields sentences, or adds a setting where a list of the recipe lacks the page's value."""
    recipe = run.reader.settings("ingest")
    if rule == "status" and row.get("http_status") is not None:
        settings["ingest.statuses"] = sorted({*recipe.get("statuses", []), row["http_status"]})
    elif rule == "content_type" and row.get("content_type"):
        kind = safe_line(row["content_type"].partition(";")[0].strip().lower(), 80)
        settings["ingest.content_types"] = f"[{', '.join(dict.fromkeys([*recipe.get('content_types', []), kind]))}]"
    elif rule.startswith("url_"):
        yield (
            f"{safe_line(rule, 40)}: the domain or URL in a file that ingest.url_filter.allow names lets it pass; "
            f"or ingest.url_filter.rules without {safe_line(rule, 40)}."
        )
    elif rule == "record_type":
        yield "a record of this kind holds no page, so nothing keeps it."
    else:
        yield f"{safe_line(rule, 40)}: no setting keeps a record like this."


def _dedup(run: Run, rule: str, row: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    similarity = row.get("similarity")
    if rule == "near_duplicate" and similarity is not None and 0 < similarity < 0.9995:
        threshold = math.floor(similarity * 1000 + 1) / 1000
        settings["dedup.threshold"] = threshold
    elif rule.endswith("_duplicate"):
        yield f"{safe_line(rule, 40)}: one copy of a text stays, and dedup.keep says which (now {safe_line(_keep(run), 80)})."
    elif rule == "contaminated":
        yield "contaminated: dedup.contamination.action cut or report in place of drop."
    else:
        yield f"{safe_line(rule, 40)}: no threshold of the report decides this."


def _keep(run: Run) -> str:
    keep = run.reader.settings("dedup").get("keep", "longest")
    return ", ".join(map(str, keep)) if isinstance(keep, list) else str(keep)
