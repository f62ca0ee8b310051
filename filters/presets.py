"""Presets of the whole stage: the steps of a published pipeline in its order, as a recipe would write them.

Each gives a recipe's `word_rule`, `steps` and `thresholds`; what the recipe says itself goes first.
"""

from collections.abc import Mapping
from typing import Any

#: Preset to keys of the section `filter`. The lists of URLs, where a pipeline has them, belong to `ingest`.
PRESETS: dict[str, dict[str, Any]] = {
    # MassiveText (arXiv 2112.11446, A1.1): quality, then repetition.
    "gopher-paper": {
        "word_rule": "whitespace",  # the paper names no rule
        "steps": [{"gopher_quality": {"preset": "gopher-paper"}}, {"gopher_repetition": {"preset": "gopher-paper"}}],
    },
    # Each heuristic of datatrove 0.10 with its own defaults, in the order of FineWeb.
    "datatrove-0.10": {
        "word_rule": "spacy",
        "steps": [
            {"gopher_repetition": {"preset": "datatrove-0.10"}},
            {"gopher_quality": {"preset": "datatrove-0.10"}},
            {"c4": {"preset": "datatrove-0.10"}},
            {"fineweb_quality": {"preset": "datatrove-0.10"}},
        ],
    },
    # FineWeb (arXiv 2406.17557; datatrove's examples/fineweb.py): C4 rewrites the text before FineWeb's own rules see it.
    "fineweb": {
        "word_rule": "spacy",
        "steps": [
            {"language": {"keep": ["en"], "threshold": 0.65}},
            {"gopher_repetition": {"preset": "fineweb"}},
            {"gopher_quality": {"preset": "fineweb"}},
            {"c4": {"preset": "fineweb", "filter_no_terminal_punct": False}},
            {"fineweb_quality": {"preset": "fineweb"}},
            {"pii": {}},
        ],
    },
}


def expand(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a recipe with what its preset says filled in. Raises ValueError where there is no such preset."""
    name = section.get("preset")
    if name is None:
        return dict(section)
    if name not in PRESETS:
        raise ValueError(f"preset: no such preset (expected one of {', '.join(PRESETS)})")
    preset = PRESETS[name]
    thresholds = {**preset.get("thresholds", {}), **(section.get("thresholds") or {})}
    return {**preset, **section, "thresholds": thresholds}
