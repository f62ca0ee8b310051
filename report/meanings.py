"""What a stage's rules fail documents for, in words, as the stage wrote it beside its report."""

import json

from corpusmill.pipeline.schemas import MEANINGS_KEY
from corpusmill.report.read import RunReader


def read_meanings(reader: RunReader, stage: str) -> dict[str, str]:
    """Phrases ("fewer than 50 words") by rule; empty for reports of older versions, and without those of rules that nobody described."""
    schema = reader.schema(stage, "report")
    raw = ((schema.metadata if schema is not None else None) or {}).get(MEANINGS_KEY)
    if raw is None:
        return {}
    try:
        return {str(rule): str(phrase) for rule, phrase in json.loads(raw).items()}
    except (ValueError, AttributeError) as error:
        reader.warn(f"{stage}: what its rules mean, beside its report, can't be read ({error}).")
        return {}
