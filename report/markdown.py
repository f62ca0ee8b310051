"""Markdown in which text of crawls, models and users is text alone: for the cards of models and of data."""

import re
from typing import Any

from corpusmill.pipeline.safe import safe_line, safe_text

#: Characters of a text that a card shows.
LONGEST_TEXT = 700
_MARKS = re.compile(r"([\\`*_\[\]<>&|~#!$])")


def environment(package: str) -> Any:
    """The jinja2.Environment of a package's folder. What it renders is Markdown: the filters `md`, `code` and `block` escape."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package, "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters |= {"md": escaped, "code": code, "block": block, "count": lambda value: f"{value:,}"}
    made.filters["share"] = lambda part, whole: f"{part / whole:.1%}" if whole else "–"
    return made


def front_matter(values: dict[str, Any]) -> str:
    """The header of a card for the hub: YAML between two lines of dashes, without what is empty."""
    import yaml

    lines = yaml.safe_dump(
        {key: value for key, value in values.items() if value}, sort_keys=False, allow_unicode=True, width=1000
    )  # fmt: skip
    return f"---\n{lines}---\n\n"


def escaped(value: Any, limit: int = 300) -> str:
    """Text on one line in which nothing is Markdown or HTML."""
    return _MARKS.sub(r"\\\1", safe_line(str(value), limit))


def code(value: Any) -> str:
    """A name as inline code, also in a table."""
    return f"`{safe_line(str(value), 200).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def block(value: Any, limit: int | None = LONGEST_TEXT, language: str = "text") -> str:
    """A text as a code block whose fence is longer than any within it."""
    text = safe_text(str(value), limit)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
