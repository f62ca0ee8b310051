"""Presets of the whole stage: the steps of a published pipeline in its order, as a recipe would write them.

A preset gives `word_rule`, `steps` and `thresholds`. A recipe adds steps to it; the recipe's own word rule and thresholds take precedence.
"""

import re
from collections.abc import Iterable, Mapping
from os.path import join
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError

from corpusmill.filters.language_codes import LID_176, labels_for, standard_labels
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.names import instead_of

#: By preset, the keys of the section `filter`: `word_rule`, `steps`, `thresholds`.
PRESETS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("presets.yaml").read_text("utf-8"))
#: The preset with different thresholds for each language (fineweb2.json).
BY_LANGUAGE = "fineweb-2"
#: The greatest distance (of langcodes) of a language that is named in place of another: two without relation have one of 84 or more.
NEAR = 83
#: The keys that choose its language.
OF_LANGUAGE = ("language", "language_config", "language_model")


def expand(section: Mapping[str, Any], folder: str = ".") -> dict[str, Any]:
    """Returns a recipe's section with steps, word rule and thresholds in place of the names of presets.

    A preset's steps stand where the list of steps has `- preset: NAME`, else before the list. Steps that take one place of the list are a
    tuple, so that messages count places as the recipe does. What is returned names no preset. Paths are relative to `folder`. Raises
    ValueError if there is no such preset or language, or if presets do not go together.
    """
    steps, limits = section.get("steps", []), section.get("thresholds", {})
    of_language = {key: section[key] for key in OF_LANGUAGE if section.get(key) is not None}
    if not isinstance(steps, list | tuple) or not isinstance(limits, Mapping):  # their own validation says so
        return dict(section)
    placed = [str(item["preset"]) if isinstance(item, Mapping) and [*item] == ["preset"] else None for item in steps]
    ahead = [str(section["preset"])] if section.get("preset") is not None and section["preset"] not in placed else []
    names = [name for name in (*ahead, *placed) if name is not None]
    if unknown := [name for name in names if name not in (*PRESETS, BY_LANGUAGE)]:
        raise ValueError(f"preset: {unknown[0]!r} is unknown{instead_of(unknown[0], [*PRESETS, BY_LANGUAGE])}")
    presets = {name: PRESETS[name] if name in PRESETS else fineweb2_section(folder, **of_language) for name in names}
    if of_language and BY_LANGUAGE not in presets:
        key = next(iter(of_language))
        raise ValueError(f"{key}: only the preset {BY_LANGUAGE} asks for one; to keep languages, write `- language: {{keep: [en, de]}}`")
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
    return {**word_rule, **section, "preset": None, **dict.fromkeys(OF_LANGUAGE), "steps": places, "thresholds": limits}


# ---- FineWeb-2 (arXiv 2506.20920): the steps of its script, with the thresholds and stop words that it publishes for each language.
#
# FineWeb-2 chose these with datatrove's word tokenizer for each language and with the language scores of GlotLID. Scripts that are written
# without spaces, and Korean for its morphemes, have the words of that tokenizer here. For others the word rule is `words` (`whitespace`
# for scripts whose vowel signs would split a word), which needs no library; `word_rule: datatrove:LANGUAGE` beside the preset gives
# datatrove's. The language comes from lid.176, or from GlotLID's model (`language_model`).

#: Scripts whose words only a tokenizer finds, and the languages with a kernel for them.
TOKENIZED_SCRIPTS = "Hani Hans Hant Jpan Hira Kana Bopo Hang Kore Thai Laoo Khmr Mymr Tibt Yiii Lana"
KERNELS = {"cmn_Hani": "jieba", "tha_Thai": "newmm"}
#: Scripts whose vowel signs are not matched by `\w`.
WHITESPACE_SCRIPTS = "Deva Beng Guru Gujr Orya Taml Telu Knda Mlym Sinh Thaa Java Sund Bali Cakm Mtei Sylo Newa"


def _limits_of(first: int, last: int) -> Any:
    """Returns the type of limits by n: pairs `[n, limit]`, as FineWeb-2 writes them, or the limits alone, in the order of n."""

    def check(given: list[Any]) -> list[float]:
        pairs = given if isinstance(given[0], list) else list(zip(range(first, last + 1), given))
        if [n for n, _ in sorted(pairs)] != [*range(first, last + 1)] or len(given) != len(pairs):
            raise ValueError(f"wants a limit for each n from {first} to {last}")
        return [float(limit) for _, limit in sorted(pairs)]

    return Annotated[list[list[float]] | list[float], AfterValidator(check)]


class LanguageLimits(BaseModel):
    """The content of FineWeb-2's file for a language. `code`: the language for lid.176, where it is known."""

    code: str | None = None
    language_score: float
    dup_line_frac: float
    top_n_grams: _limits_of(2, 4)  # type: ignore[valid-type]
    dup_n_grams: _limits_of(5, 10)  # type: ignore[valid-type]
    line_punct_thr: float
    new_line_ratio: float
    min_avg_word_length: float
    max_avg_word_length: float
    max_non_alpha_words_ratio: float
    stopwords: list[str]


def fineweb2_section(
    folder: str = ".", language: str | None = None, language_config: str | None = None, language_model: str | None = None
) -> dict[str, Any]:
    """Returns the keys of the section `filter` for a language, by any of its codes. Paths are relative to `folder`.

    `language_config`: FineWeb-2's folder of configurations, or one of its files. `language_model`: GlotLID's model.
    Raises ValueError for a language without thresholds, and for a file that lacks some.
    """
    if language_config is None:
        table: dict[str, Any] = parse_json(Path(__file__).with_name("fineweb2.json").read_text("utf-8"))["languages"]
        name = _chosen(language, table, "the preset fineweb-2")
        limits = LanguageLimits.model_validate(table[name])
    else:
        name, limits = _read_limits(Path(join(folder, language_config)), language)
    script = name.rpartition("_")[2]
    tokenized = KERNELS.get(name, f"datatrove:{name}")
    keep = name if language_model else limits.code or _lid_176_code(name)
    return {
        "word_rule": tokenized
        if script in TOKENIZED_SCRIPTS.split()
        else "whitespace"
        if script in WHITESPACE_SCRIPTS.split()
        else "words",
        "steps": [
            {"language": {"keep": [keep], "threshold": limits.language_score, "min_letters": 0, "model": language_model}},
            {"gopher_repetition": {"preset": "datatrove-0.10"}},
            {"fineweb_quality": {"preset": "datatrove-0.10"}},
            {"gopher_quality": {"preset": "datatrove-0.10", "stop_words": limits.stopwords}},
            {"pii": {"kinds": ["email", "ipv4"]}},
        ],
        "thresholds": {
            **dict.fromkeys(("dup_para_frac", "dup_para_char_frac", "dup_line_char_frac", "short_line_ratio")),  # switched off
            # 0 switches these off in datatrove
            "dup_line_frac": limits.dup_line_frac or None,
            "gopher_above_avg_threshold": limits.max_avg_word_length or None,
            **{f"top_{n}_gram": limit for n, limit in zip(range(2, 5), limits.top_n_grams)},
            **{f"duplicated_{n}_n_grams": limit for n, limit in zip(range(5, 11), limits.dup_n_grams)},
            "line_punct_ratio": limits.line_punct_thr,
            "char_dup_ratio": 0.1,
            "list_ratio": limits.new_line_ratio,
            "gopher_below_avg_threshold": limits.min_avg_word_length,
            "gopher_below_alpha_threshold": limits.max_non_alpha_words_ratio,
        },
    }


def _chosen(language: str | None, names: Iterable[str], where: str) -> str:
    """Returns the name that a code of a language means. Raises ValueError, which names the nearest."""
    known = sorted(names)
    if language is None:
        raise ValueError(f"preset: fineweb-2 also needs `language`, for example fra (it has {', '.join(known[:60])})")
    if language in known:
        return language
    try:
        (name,) = labels_for([str(language)], frozenset(known))
    except ValueError:
        from langcodes import LanguageTagError, closest_supported_match

        try:
            tags = {name.replace("_", "-"): name for name in known}
            near = tags.get(str(closest_supported_match(str(language), list(tags), max_distance=NEAR)))
        except LanguageTagError:
            near = None
        nearest = f" (the nearest language that it has is {near})" if near else instead_of(str(language), known)
        raise ValueError(
            f"language: {where} has no thresholds and stop words for {language!r}{nearest}; "
            "`language_config: PATH` reads those of a file in FineWeb-2's format"
        ) from None
    return name


def _read_limits(path: Path, language: str | None) -> tuple[str, LanguageLimits]:
    """Returns the name of a language and its limits, from a file, or from a folder with a file for each language."""
    name = path.stem
    if path.is_dir():
        name = _chosen(language, (file.stem for file in path.glob("*_*.yml")), str(path))
        path = path / f"{name}.yml"
    elif language is not None:
        _chosen(language, [name], str(path))
    if not re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", name):
        raise ValueError(f"language_config: {path}: the file of a language is called LANGUAGE_SCRIPT.yml, as fra_Latn.yml")
    try:
        return name, LanguageLimits.model_validate(yaml.safe_load(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"language_config: {path}: can't be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"language_config: {path}: is no YAML ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"][:1])) or "the file"
        raise ValueError(f"language_config: {path}: {where}: {wrong['msg'].lower()}") from error


def _lid_176_code(name: str) -> str:
    try:
        return standard_labels(LID_176)[labels_for([name], LID_176)[0]]
    except ValueError:
        raise ValueError(
            f"language: lid.176 does not know {name}; give `language_model: PATH`, a fastText model with this label, such as GlotLID's"
        ) from None
