"""Token shards, the mixture that they are made of, and how documents fill rows, as the stage's JSON files have it."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from corpusmill.report.read import RunReader

PLAN = "tokens/plan.json"


def shards_file(split: str) -> str:
    return f"tokens/{split}/shards.json"


def token_splits(reader: RunReader) -> dict[str, dict[str, Any]]:
    """The `shards.json` of each split that is there."""
    found = {split: reader.json(shards_file(split), dict) for split in ("train", "validation")}
    return {split: description for split, description in found.items() if description}


@dataclass(frozen=True)
class Packing:
    """How the documents of a split fill rows of `length` places."""

    split: str
    length: int
    rows: int
    padding: int
    waste: float


def packings(splits: dict[str, dict[str, Any]]) -> list[Packing]:
    """What the `shards.json` of each split says of its packing plans."""
    found = []
    for split, description in splits.items():
        for told in description.get("packing") or []:
            with suppress(KeyError, TypeError, ValueError, OverflowError):  # a damaged file: what can be read of it is shown
                found.append(Packing(split, int(told["length"]), int(told["rows"]), int(told["padding"]), float(told["waste"])))
    return found


@dataclass(frozen=True)
class Component:
    """A component of a mixture: the tokens that it should give, has, and gives, and by how much `max_epochs` keeps it short."""

    name: str
    wanted: int
    there: int
    tokens: int
    epochs: float
    short: int


def mixture(reader: RunReader) -> list[Component]:
    """What the plan of the token shards says of its mixture; nothing where there is none."""
    found = []
    components = (reader.json(PLAN, dict) or {}).get("mixture")
    for told in components if isinstance(components, list) else []:
        with suppress(KeyError, TypeError, ValueError, OverflowError):  # a damaged file: what can be read of it is shown
            wanted, there, tokens, short = (int(told[name]) for name in ("wanted", "there", "tokens", "short"))
            found.append(Component(str(told["name"]), wanted, there, tokens, float(told["epochs"]), short))
    return found
