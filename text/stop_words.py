"""Stop words of 60 languages: spaCy's lists, a JSON file `{language: [words]}` (`tests/helpers/spacy_data.py` writes it)."""

from pathlib import Path

SHIPPED = Path(__file__).with_name("stop_words.json")
