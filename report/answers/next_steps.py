"""What the terminal's report ends with: the rule that removed most, in words, and the commands that look closer and change it."""

import shlex
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.facts.headline import Headline, headline
from corpusmill.report.facts.histogram import number
from corpusmill.report.facts.summary import Summary
from corpusmill.report.tables import limit, share


def show_next_steps(folder: str, summary: Summary, console: Console) -> None:
    """Sentences and commands, last on the screen; nothing where no stage has dropped anything."""
    found = headline(summary.decisions, [])
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
