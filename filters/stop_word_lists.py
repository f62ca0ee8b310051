"""Stop words by language: spaCy's, or those of a JSON file `{language: [words]}`."""

import importlib
import json
from functools import cache
from pathlib import Path

from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.text.spacy_rules import import_spacy


@cache
def languages(path: str | None = None) -> tuple[str, ...]:
    """The codes of the languages that there are lists for, as spaCy or the file calls them. Raises InputError."""
    if path is not None:
        return tuple(sorted(_lists(path)))
    import_spacy()
    import spacy.lang

    (folder,) = spacy.lang.__path__
    return tuple(sorted(found.parent.name for found in Path(folder).glob("*/stop_words.py")))


def stop_words(language: str, path: str | None = None) -> frozenset[str]:
    """The stop words of a language. Raises ConfigError where there is no list for it, InputError where the file can't be read."""
    if language not in languages(path):
        where = "" if path is None else f"{path}: "
        known = ", ".join(languages(path))
        raise ConfigError(f"{where}there is no list of stop words for the language {language!r} (there is one for {known}).")
    if path is not None:
        return _lists(path)[language]
    import_spacy()
    return frozenset(importlib.import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS)


@cache
def _lists(path: str) -> dict[str, frozenset[str]]:
    try:
        with open(path, encoding="utf-8") as file:
            lists = json.load(file)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON ({error}).") from error
    if not isinstance(lists, dict) or not all(
        isinstance(words, list) and all(isinstance(w, str) for w in words) for words in lists.values()
    ):
        raise InputError(f"{path}: is no JSON object of lists of words by language.")
    return {language: frozenset(words) for language, words in lists.items()}
