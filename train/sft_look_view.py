"""Examples on a terminal, in colours or with marks where there are none, and as a page."""

import re
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.safe import quoted, safe_line, safe_text
from corpusmill.report.page.page import policy, templates
from corpusmill.train.sft_look import CUT, GIVEN, LEARNED, Shown, Source, Stretch

STYLES = {LEARNED: "bold green", GIVEN: "", CUT: "red strike"}
SPECIAL = " reverse"
MARKS = {LEARNED: ("{+", "+}"), GIVEN: ("", ""), CUT: ("[-", "-]")}
MEANINGS = {LEARNED: "learned", GIVEN: "given, not learned", CUT: "cut off, longer than the context"}
_LOOKALIKE = re.compile(r"<(?=[|｜])")
PAGE = "sft_look.html.jinja"


def show(shown: list[Shown], head: list[str], console: Console, tokens: bool = False) -> None:
    """Prints a legend, some lines about all and each example; `tokens`: with a line a token."""
    coloured = console.color_system is not None and not console.no_color
    console.print(_legend(coloured))
    for line in head:
        console.print(Text(safe_line(line, 400)))
    for one in shown:
        console.print()
        console.print(Text(safe_line(one.example.id, 200), style="bold"), Text(_counts(one)))
        if one.failed:
            console.print(Text(f"dropped: {', '.join(one.failed)}{f' ({safe_line(one.note, 400)})' if one.note else ''}", style="yellow"))
        if one.stretches:
            text = _coloured(one.stretches) if coloured else _marked(one.stretches)
            if text.plain.endswith("\n"):
                text.right_crop(1)
            console.print(text)
        if tokens:
            for place, token in enumerate(one.tokens):
                line = f"{place:5d} {token.id:7d}  {'special' if token.special else '':7s}  {token.state:7s}  {quoted(token.text)}"
                console.print(Text(line, style=STYLES[token.state] if coloured else ""))


def head(source: Source, shown: list[Shown]) -> str:
    """What is said of all examples."""
    total, held_out = len(source.examples), sum(example.held_out for example in source.examples)
    if source.dropped is None:
        counts = f"{total:,} rows"
    else:
        counts = f"{total - held_out:,} examples to learn from, {held_out:,} held out, {len(source.dropped):,} dropped"
    return f"{len(shown):,} of {source.name}: {counts}; context {source.context:,}"


def packed_head(row: int, rows: int, padding: int, source: Source, shown: list[Shown], held_out: bool) -> str:
    """What is said of a packed row."""
    of = f"Row {row:,} of {rows:,}{' held-out ones' if held_out else ''}"
    examples = "1 example" if len(shown) == 1 else f"{len(shown):,} examples that do not see each other"
    return f"{of}: {source.context:,} places, {examples}, {padding:,} places of padding"


def write_page(shown: list[Shown], head: list[str], path: str, tokens: bool) -> None:
    """The same as one page that needs nothing else. Raises InputError where it can't be written."""
    environment = templates()
    folder = resources.files("corpusmill.train")
    style = (folder / "sft_look.css").read_text("utf-8")
    page = environment.from_string((folder / PAGE).read_text("utf-8")).render(
        shown=shown, head=head, tokens=tokens, counts=_counts, meanings=MEANINGS, policy=policy([], [style]), style=_markup(style)
    )
    try:
        Path(path).write_text(page, "utf-8", "replace")
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}).") from error


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _counts(one: Shown) -> str:
    learned, cut = one.count(LEARNED), one.count(CUT)
    parts = [one.example.kind, "held out" if one.example.held_out else "", f"{len(one.tokens):,} tokens", f"{learned:,} learned"]
    parts.append(f"{cut:,} cut off" if cut else "")
    if one.begin is not None:
        parts.append(f"places {one.begin:,} to {one.begin + len(one.tokens) - cut - 2:,}")
    return ", ".join(filter(None, parts))


def _legend(coloured: bool) -> Text:
    legend = Text()
    for state, meaning in MEANINGS.items():
        before, after = ("", "") if coloured else MARKS[state]
        legend.append(f"{before}{meaning}{after}", style=STYLES[state] if coloured else "").append("  ")
    return legend.append("<|special token|>", style=SPECIAL if coloured else "")


def _coloured(stretches: list[Stretch]) -> Text:
    text = Text()
    for stretch in stretches:
        text.append(safe_text(stretch.text), style=STYLES[stretch.state] + (SPECIAL if stretch.special else ""))
    return text


def _marked(stretches: list[Stretch]) -> Text:
    """With marks as in `git diff --word-diff`; what looks like a special token and is none has a backslash in it."""
    parts, state = [], GIVEN
    for stretch in stretches:
        if stretch.state != state:
            parts += [MARKS[state][1], MARKS[stretch.state][0]]
            state = stretch.state
        text = safe_text(stretch.text)
        parts.append(text if stretch.special else _LOOKALIKE.sub(r"<\\", text))
    return Text("".join([*parts, MARKS[state][1]]))
