"""Presets of the whole stage: the steps of a published pipeline in its order, as a recipe would write them.

Each gives a recipe's `word_rule`, `steps` and `thresholds`; what the recipe says itself goes first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: Preset to keys of the section `filter`: `word_rule`, `steps`, `thresholds`.
PRESETS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text("utf-8"))
#: The preset that has thresholds of its own for each language (fineweb2.json).
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
        preset = fineweb2_section(language)
    elif name in PRESETS:
        preset = PRESETS[name]
    else:
        raise ValueError(f"preset: {name!r} is unknown (expected one of {', '.join([*PRESETS, BY_LANGUAGE])})")
    # a recipe that has steps of its own has no use for the thresholds of others'
    thresholds = {} if "steps" in section else preset.get("thresholds", {})
    return {**preset, **section, "thresholds": {**thresholds, **(section.get("thresholds") or {})}}


# ---- FineWeb-2 (arXiv 2506.20920): the steps of its script with the thresholds and stop words that it publishes a language.
#
# They were made on words of a tokenizer a language (spaCy, stanza and others) and on scores of GlotLID. Here words are those of the rule
# `words` (`whitespace` for scripts whose vowel signs would split a word), and languages come from the model that the step `language` is
# given, by default lid.176. Languages whose words only a segmenter can find (Chinese, Japanese, Thai, Korean's morphemes) are left out.

#: `\w` does not know the vowel signs of these scripts.
WHITESPACE_SCRIPTS = ("Deva",)


def fineweb2_section(language: str | None) -> dict[str, Any]:
    """The keys of the section `filter` for a language, given as `fra_Latn`, `fra` or `fr`. Raises ValueError for one without thresholds."""
    table: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("fineweb2.json").read_text("utf-8"))
    languages = table["languages"]
    for name, row in languages.items():
        if language in (name, name.partition("_")[0], row["code"]):
            return _section(name, row)
    if language is None:
        raise ValueError(f"preset: fineweb-2 needs a language beside it, for example fra (it has {', '.join(languages)})")
    raise ValueError(f"language: {language!r} is none that the preset fineweb-2 has thresholds for (it has {', '.join(languages)})")


def _section(name: str, row: dict[str, Any]) -> dict[str, Any]:
    dup = {f"duplicated_{n}_n_grams": limit for n, limit in zip(range(5, 11), row["dup_n_grams"])}
    top = {f"top_{n}_gram": limit for n, limit in zip(range(2, 5), row["top_n_grams"])}
    return {
        "word_rule": "whitespace" if name.endswith(WHITESPACE_SCRIPTS) else "words",
        "steps": [
            {"language": {"keep": [row["code"]], "threshold": row["language_score"], "min_letters": 0}},
            {"gopher_repetition": {"preset": "datatrove-0.10"}},
            {"fineweb_quality": {"preset": "datatrove-0.10"}},
            {"gopher_quality": {"preset": "datatrove-0.10", "stop_words": row["stopwords"]}},
            {"pii": {"kinds": ["email", "ipv4"]}},
        ],
        "thresholds": {
            **dict.fromkeys(("dup_para_frac", "dup_para_char_frac", "dup_line_char_frac", "short_line_ratio")),  # switched off
            "dup_line_frac": row["dup_line_frac"],
            **top,
            **dup,
            "line_punct_ratio": row["line_punct_thr"],
            "char_dup_ratio": 0.1,
            "list_ratio": row["new_line_ratio"],
            "gopher_below_avg_threshold": row["min_avg_word_length"],
            "gopher_above_avg_threshold": row["max_avg_word_length"],
            "gopher_below_alpha_threshold": row["max_non_alpha_words_ratio"],
        },
    }
