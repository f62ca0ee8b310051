"""Presets of the whole stage: the steps of a published pipeline in its order, as a recipe would write them.

A preset gives `word_rule`, `steps` and `thresholds`. A recipe adds steps to it; the recipe's own word rule and thresholds take precedence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from corpusmill.filters.language_codes import labels_for
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.names import instead_of

#: By preset, the keys of the section `filter`: `word_rule`, `steps`, `thresholds`.
PRESETS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text("utf-8"))
#: The preset with different thresholds for each language (fineweb2.json).
BY_LANGUAGE = "fineweb-2"


def expand(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe's section with steps, word rule and thresholds in place of the names of presets.

    A preset's steps stand where the list of steps has `- preset: NAME`, else before the list. Steps that take one place of the list are a
    tuple, so that messages count places as the recipe does. What is returned names no preset. Raises ValueError if there is no such preset
    or language, or if presets do not go together.
    """
    language, steps, limits = section.get("language"), section.get("steps", []), section.get("thresholds", {})
    if not isinstance(steps, list | tuple) or not isinstance(limits, Mapping):  # their own validation says so
        return dict(section)
    placed = [str(item["preset"]) if isinstance(item, Mapping) and [*item] == ["preset"] else None for item in steps]
    ahead = [str(section["preset"])] if section.get("preset") is not None and section["preset"] not in placed else []
    names = [name for name in (*ahead, *placed) if name is not None]
    if unknown := [name for name in names if name not in (*PRESETS, BY_LANGUAGE)]:
        raise ValueError(f"preset: {unknown[0]!r} is unknown{instead_of(unknown[0], [*PRESETS, BY_LANGUAGE])}")
    presets = {name: PRESETS[name] if name in PRESETS else fineweb2_section(language) for name in names}
    if language is not None and BY_LANGUAGE not in presets:
        raise ValueError(
            f"language: only the preset {BY_LANGUAGE} asks for one; to keep a language, write `- language: {{keep: [{language}]}}`"
        )
    if not presets:
        return dict(section)
    places = [tuple(presets[name]["steps"]) if name else (item,) for name, item in zip(placed, steps)] or [()]
    places[0] = (*(step for name in ahead for step in presets[name]["steps"]), *places[0])
    rules = {preset["word_rule"]: name for name, preset in presets.items() if "word_rule" in preset}
    if len(rules) > 1 and "word_rule" not in section:
        raise ValueError(f"word_rule: give one, since {', and '.join(f'{name} has {rule}' for rule, name in rules.items())}")
    kinds = [next(iter(step), None) if isinstance(step, Mapping) else step for place in places for step in place]
    for name in (name for name, preset in presets.items() if "thresholds" in preset):  # these name rules of the first step of a kind
        its = [next(iter(step)) for step in presets[name]["steps"]]
        begin = next(at for at in range(len(kinds)) if kinds[at : at + len(its)] == its)
        if twice := [kind for kind in its if kind in kinds[:begin]]:
            raise ValueError(f"steps: {twice[0]} would get the thresholds of the preset {name}; put it after `- preset: {name}`")
        limits = {**presets[name]["thresholds"], **limits}
    word_rule = {"word_rule": next(iter(rules))} if rules else {}
    return {**word_rule, **section, "preset": None, "language": None, "steps": places, "thresholds": limits}


# ---- FineWeb-2 (arXiv 2506.20920): the steps of its script, with the thresholds and stop words that it publishes for each language.
#
# FineWeb-2 chose these with a word tokenizer for each language (spaCy, stanza and others) and with the language scores of GlotLID. Here the
# word rule is `words` (`whitespace` for scripts whose vowel signs would split a word), and the language comes from the model of the step
# `language`, by default lid.176. Languages that need a segmenter to find words (Chinese, Japanese, Thai, Korean for its morphemes) are
# left out.

#: Scripts whose vowel signs are not matched by `\w`.
WHITESPACE_SCRIPTS = ("Deva",)


def fineweb2_section(language: str | None) -> dict[str, Any]:
    """Returns the keys of the section `filter` for a language, by any of its codes.

    Raises ValueError for a language without thresholds.
    """
    table: dict[str, dict[str, Any]] = parse_json(Path(__file__).with_name("fineweb2.json").read_text("utf-8"))
    languages = table["languages"]
    if language is None:
        raise ValueError(f"preset: fineweb-2 also needs `language`, for example fra (it has {', '.join(languages)})")
    try:
        (name,) = labels_for([str(language)], frozenset(languages))
    except ValueError:
        raise ValueError(f"language: the preset fineweb-2 has no thresholds for {language!r} (it has {', '.join(languages)})") from None
    row = languages[name]
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
