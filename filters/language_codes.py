"""Language codes: one name for each language, written as ISO 639-1 ("en"), 639-2 ("ger") or 639-3 ("eng"), with a script ("eng_Latn") or a
region ("zh-TW"), as a retired code ("iw"), or as a macrolanguage or its main member ("sw", "swh"; CLDR, by the library langcodes).
"""

import re
from collections.abc import Iterable
from csv import DictReader
from functools import cache
from importlib.resources import files
from typing import NamedTuple

#: The 176 labels of lid.176, which are the codes of the Wikipedias it was trained on.
_LABELS = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq dsb dty
    dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka
    kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne
    new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te
    tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LID_176 = frozenset(_LABELS.split())

#: The label of lid.176 that means another language in the standard: there, Alemannic is `gsw`, and `als` Tosk Albanian.
_WIKIPEDIA = {"als": "gsw"}

#: Names that CLDR lacks, for languages that models don't tell apart. Its name for Serbo-Croatian is Serbian.
_NAMES = {"nob": "nor", "hbs": "hbs", "pbt": "pus", "quy": "que", "gom": "kok"}
#: Scripts that the labels of lid.176 mean besides the usual one, which langcodes does not know for the last two.
_ALSO = {"zho": "Hant", "yue": "Hans", "srp": "Latn", "hbs": "Latn", "azb": "Arab", "xal": "Cyrl"}
#: Scripts that are part of another one.
_WITHIN = {("Hans", "Hani"), ("Hant", "Hani"), ("Hang", "Kore")}


class LanguageCode(NamedTuple):
    """What a code means. `own`: the language as written, in ISO 639-3; `name`: one for all codes of a language, in ISO 639-3; `short`: in
    ISO 639-1 if it has such a code. `script` (ISO 15924): the code's own or its region's, if any; `usual`: that of most texts."""

    own: str
    name: str
    short: str
    script: str | None
    usual: str | None


@cache
def read_code(code: str) -> LanguageCode | None:
    """Returns what a code means; None for text that is no code, and for a code with extensions, which means less than a language."""
    from langcodes import Language, LanguageTagError  # takes 0.1 s

    try:
        written, tag = Language.get(code, normalize=False), Language.get(code)
        own = written.to_alpha3()
    except (LanguageTagError, LookupError):
        return None
    macro = tag.prefer_macrolanguage()
    if not macro.language or tag.extensions:
        return None
    name = _NAMES.get(own, macro.to_alpha3())
    script = written.script or (written.maximize().script if written.territory else None)
    usual = Language.make(macro.language).maximize().script
    return LanguageCode(name if written.extlangs else own, name, own if own == "hbs" else macro.language, script, usual)


@cache
def _english_names() -> dict[str, str]:
    """Reads the names of datatrove's table of languages (`assets/tokenizer_assignment.csv`), by ISO 639-3."""
    text = (files("datatrove") / "assets/tokenizer_assignment.csv").read_text("utf-8")
    return {row["code_3"]: re.sub(r" \(.*\)$", "", row["name"]) for row in DictReader(text.splitlines())}


def named(code: str) -> str:
    """Returns a code with the English name of its language, for readers: "Japanese (ja)"; the code alone where the name is unknown."""
    language = split_script(code)[0]
    read = read_code(language)
    names = (_english_names().get(each) for each in (language, *((read.own, read.name) if read else ())))
    name = next(filter(None, names), None)
    return f"{name} ({code})" if name else code


def split_script(label: str) -> tuple[str, str | None]:
    """Splits a label into `(language, script)`: "eng_Latn" gives ("eng", "Latn"), "en" gives ("en", None). Scripts are ISO 15924."""
    language, _, script = label.partition("_")
    return (language, script) if re.fullmatch(r"[A-Z][a-z]{3}", script) else (label, None)


def canonical(code: str) -> str:
    """Returns one name (ISO 639-3) for all codes of a language: "eng" for "en" and "en-US". Other text gives itself in lower case."""
    code = code.strip()
    read = read_code(code)
    return read.name if read else code.lower()


def standard_labels(labels: frozenset[str]) -> dict[str, str]:
    """Returns each of a model's labels as the standard writes it. Only lid.176 has one that differs."""
    return {label: _WIKIPEDIA.get(label, label) if labels <= LID_176 else label for label in labels}


def labels_for(codes: Iterable[str], labels: frozenset[str]) -> tuple[str, ...]:
    """Returns a model's labels that the codes name, sorted: "zh" names "zho_Hans" and "zho_Hant", "zh-TW" names only the second.

    A macrolanguage ("sw") names its main member ("swh"), too; the member names the macrolanguage in a model that lacks the member. A label
    without a script means the usual one. Raises ValueError for a code that names no label.
    """
    known = standard_labels(labels)
    meanings = {label: read for label in labels if (read := read_code(known[label]))}
    wanted: set[str] = set()
    for code in map(str.strip, codes):
        read, found, where = read_code(code), [label for label in labels if known[label] == code], ""
        if read and not found:
            same = [label for label, meaning in meanings.items() if meaning.name == read.name]
            if read.own != read.name:
                same = [label for label in same if meanings[label].own == read.own] or same
            found = [label for label in same if _written_in(meanings[label], read.script)]
            where = f" in the script {read.script}" if same else ""
        if not found:
            raise ValueError(f"{code!r} is no language that the model knows{where} (codes are ISO 639 or BCP 47, such as en, eng or pt-BR)")
        wanted.update(found)
    return tuple(sorted(wanted))


def _written_in(label: LanguageCode, script: str | None) -> bool:
    """Whether texts with the label may be in a script."""
    scripts = {label.script} if label.script else {label.usual, _ALSO.get(label.name)}
    return script is None or any(script == each or not _WITHIN.isdisjoint({(script, each), (each, script)}) for each in scripts)
