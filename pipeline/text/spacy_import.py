"""How spaCy is imported."""

import sys
from typing import Any


def import_spacy() -> Any:
    """spaCy, without the torch that its models would run on: that takes 200 MB and most of the time, and words need no model."""
    if "spacy" in sys.modules or "torch" in sys.modules:
        import spacy

        return spacy
    sys.modules["torch"] = None  # type: ignore[assignment]  # how Python marks a module that is not there
    try:
        import spacy
    finally:
        del sys.modules["torch"]
    return spacy
