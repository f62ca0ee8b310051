"""Writes the tables that this project has from spaCy: the rules of its English tokenizer, and its lists of stop words.

    python tests/helpers/spacy_data.py

Tests compare the files with the installed spaCy by the same functions. LICENSE.spacy is spaCy's license.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import spacy
import spacy.lang
from spacy.lang import char_classes
from spacy.pipeline import Sentencizer
from spacy.symbols import ORTH

ROOT = Path(__file__).resolve().parents[2]
RULES, STOP_WORDS = ROOT / "text/spacy_english.json", ROOT / "text/stop_words.json"


def english_rules() -> dict[str, Any]:
    """Returns the patterns, exceptions and characters of spaCy's English tokenizer and sentencizer."""
    tokenizer = spacy.blank("en").tokenizer
    searches = {"prefix": tokenizer.prefix_search, "suffix": tokenizer.suffix_search, "infix": tokenizer.infix_finditer}
    patterns = {name: search.__self__.pattern for name, search in {**searches, "url": tokenizer.url_match}.items()}
    classes = {
        "alpha": char_classes.ALPHA, "lower": char_classes.ALPHA_LOWER, "upper": char_classes.ALPHA_UPPER, "icons": char_classes.ICONS
    }  # fmt: skip
    named = set(char_classes.PUNCT + char_classes.CONCAT_QUOTES + char_classes.CURRENCY + char_classes.HYPHENS)
    return {
        "patterns": patterns,
        "exceptions": {text: [piece[ORTH] for piece in pieces] for text, pieces in sorted(tokenizer.rules.items())},
        "classes": classes,
        "marks": "".join(sorted(named)),
        "sentence_ends": "".join(Sentencizer.default_punct_chars),
    }


def stop_words() -> dict[str, list[str]]:
    """Returns spaCy's stop words by language, as spaCy writes its codes."""
    (folder,) = spacy.lang.__path__
    names = sorted(found.parent.name for found in Path(folder).glob("*/stop_words.py"))
    return {name: sorted(importlib.import_module(f"spacy.lang.{name}.stop_words").STOP_WORDS) for name in names}


def write(path: Path, table: dict[str, Any]) -> None:
    """Writes a table as JSON with one key a line."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    write(RULES, english_rules())
    write(STOP_WORDS, stop_words())
