"""What a rule fails a document for, as one phrase: "fewer than 50 words". Steps give a template for each column that a rule may be on.

A template holds one of

    {count}   an amount of things: fewer than 50, more than 100,000, exactly 3
    {number}  a measure: less than 3, at least 0.5
    {share}   a part of something, in per cent: more than 30%
    {list}    the items of a list: en, de

so that the phrase has the threshold that decided.
"""

from typing import Any

WORDS: dict[str, dict[str, str]] = {
    "count": {"<": "fewer than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly"},
    "number": {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly"},
}


def meaning(template: str, comparison: str, threshold: Any) -> str:
    """The phrase of a rule; empty where its column has no template, or the threshold is yet to be found."""
    if not template or threshold != threshold:
        return ""
    if isinstance(threshold, tuple | list):
        return template.format(list=", ".join(threshold))
    return template.format(
        count=_count(comparison, threshold, template.startswith("{count} of")),
        number=f"{WORDS['number'][comparison]} {threshold:,}",
        share=f"{WORDS['number'][comparison]} {100 * threshold:.6g}%",
    )


def _count(comparison: str, threshold: float, of: bool) -> str:
    if (comparison, threshold) in (("<", 1), ("<=", 0)):
        return "none" if of else "no"
    return "one or more" if (comparison, threshold) == (">", 0) else f"{WORDS['count'][comparison]} {threshold:,}"


def words_of(words: tuple[str, ...]) -> str:
    """Some words for a template: the first dozen of them."""
    return plain(", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else ""))


def plain(text: str) -> str:
    """Any text for a template."""
    return text.replace("{", "{{").replace("}", "}}")


def n_grams(top: str, duplicated: str) -> dict[str, str]:
    """Templates of columns for repeated runs of words. `top` and `duplicated` are the columns' names with `{}` for the number of words."""
    once = {top.format(n): f"one phrase of {n} words takes up {{share}} of the text" for n in (2, 3, 4)}
    return once | {duplicated.format(n): f"{{share}} of the text is in repeated phrases of {n} words" for n in range(5, 11)}
