"""Presets of the whole stage: the steps of a published pipeline in its order, as a recipe would write them.

Each gives a recipe's `word_rule`, `steps` and `thresholds`; what the recipe says itself goes first.
"""

from collections.abc import Mapping
from typing import Any

from corpusmill.filters import fineweb2

#: Preset to keys of the section `filter`. The lists of URLs, where a pipeline has them, belong to `ingest`.
PRESETS: dict[str, dict[str, Any]] = {
    # MassiveText (arXiv 2112.11446, A1.1): quality, then repetition.
    "gopher-paper": {
        "word_rule": "whitespace",  # the paper names no rule
        "steps": [{"gopher_quality": {"preset": "gopher-paper"}}, {"gopher_repetition": {"preset": "gopher-paper"}}],
    },
    # Languages that are written without spaces between words; nobody's pipeline but ours.
    "characters": {
        "word_rule": "characters",
        "steps": [
            {"language": {"keep": ["zh", "ja", "th", "lo", "km", "my", "bo"], "threshold": 0.65}},
            {"gopher_repetition": {"preset": "characters"}},
            {"gopher_quality": {"preset": "characters"}},
        ],
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
            {"language": {"keep": ["en"], "threshold": 0.65, "min_letters": 0}},
            {"gopher_repetition": {"preset": "fineweb"}},
            {"gopher_quality": {"preset": "fineweb"}},
            {"c4": {"preset": "fineweb", "filter_no_terminal_punct": False}},
            {"fineweb_quality": {"preset": "fineweb"}},
            {"pii": fineweb2.EMAIL_AND_IPV4},
        ],
    },
    # C4 (JMLR 21, 2020) and datatrove's filter of that name. The paper's English of langdetect and its list of bad words
    # are steps of their own: `- language: {keep: [en]}` and `- bad_words: {}`.
    "c4-paper": {"word_rule": "whitespace", "steps": [{"c4": {"preset": "c4-paper"}}]},
    "c4-datatrove": {"word_rule": "spacy", "steps": [{"c4": {"preset": "c4-datatrove"}}]},
    # RefinedWeb (arXiv 2306.01116) with Gopher's rules as their paper has them; `dclm` is its open reproduction.
    "refinedweb": {
        "word_rule": "whitespace",
        "steps": [
            {"language": {"keep": ["en"], "threshold": 0.65, "min_letters": 0}},
            {"gopher_repetition": {"preset": "gopher-paper"}},
            {"gopher_quality": {"preset": "gopher-paper"}},
            {"refinedweb_lines": {"preset": "refinedweb"}},
        ],
    },
    # DCLM's baselines_configs/dclm_baseline_refinedweb.yaml, without its lists of URLs (those belong to `ingest`).
    "dclm": {
        "steps": [
            {"language": {"keep": ["en"], "threshold": 0.65, "min_letters": 0}},
            {"dclm": {"preset": "dclm"}},
            {"refinedweb_lines": {"preset": "dclm"}},
        ]
    },
    # The rules that Dolma applies to its Gopher taggers.
    "dolma": {"steps": [{"dolma": {"preset": "dolma"}}]},
    # NeMo Curator 1.4: the filters of its English heuristics, each on every document.
    "nemo-1.4": {"steps": [{"nemo": {"preset": "nemo-1.4"}}]},
}


#: The preset that has thresholds of its own for each language (filters/fineweb2.py).
BY_LANGUAGE = "fineweb-2"


def expand(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a recipe with what its preset says filled in. Raises ValueError where there is no such preset or language."""
    name, language = section.get("preset"), section.get("language")
    if language is not None and name != BY_LANGUAGE:
        raise ValueError(
            f"language: only the preset {BY_LANGUAGE} asks for one; to keep a language, write `- language: {{keep: [{language}]}}`"
        )
    if name is None:
        return dict(section)
    if name == BY_LANGUAGE:
        preset = fineweb2.section(language)
    elif name in PRESETS:
        preset = PRESETS[name]
    else:
        raise ValueError(f"preset: no such preset (expected one of {', '.join([*PRESETS, BY_LANGUAGE])})")
    # a recipe that has steps of its own has no use for the thresholds of others'
    thresholds = {} if "steps" in section else preset.get("thresholds", {})
    return {**preset, **section, "thresholds": {**thresholds, **(section.get("thresholds") or {})}}
