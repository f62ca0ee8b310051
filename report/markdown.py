"""Writes the Markdown of model and data cards. Text from crawls, models and users is escaped, so it can't act as markup."""

import re
from typing import Any

from corpusmill.pipeline.safe import safe_line, safe_text
from corpusmill.report.tables import number

#: Characters of a text that a card shows at most.
LONGEST_TEXT = 700
_MARKS = re.compile(r"([\\`*_\[\]<>&|~#!$])")


def environment(package: str) -> Any:
    """Returns the jinja2.Environment of a package's folder. It renders Markdown without autoescape: the filters `md`, `code` and `block`
    escape."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(package, "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters |= {"md": escaped, "code": code, "block": block, "count": lambda value: f"{value:,}", "number": number}
    made.filters["share"] = lambda part, whole: f"{part / whole:.1%}" if whole else "–"
    return made


def front_matter(values: dict[str, Any]) -> str:
    """Returns the header of a card for the hub: YAML between two lines of dashes, without empty values."""
    import yaml

    lines = yaml.safe_dump(
        {key: value for key, value in values.items() if value}, sort_keys=False, allow_unicode=True, width=1000
    )  # fmt: skip
    return f"---\n{lines}---\n\n"


def escaped(value: Any, limit: int = 300) -> str:
    """Returns a text on one line with every Markdown and HTML character escaped."""
    return _MARKS.sub(r"\\\1", safe_line(str(value), limit))


def code(value: Any) -> str:
    """Returns a name as inline code that is valid in a table too."""
    return f"`{safe_line(str(value), 200).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def block(value: Any, limit: int | None = LONGEST_TEXT, language: str = "text") -> str:
    """Returns a text as a code block, with a fence longer than any run of backticks in the text."""
    text = safe_text(str(value), limit)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
