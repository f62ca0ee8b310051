"""From records to tokens: what each stage took in and let through."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from corpusmill.report.facts.decisions import Decisions
from corpusmill.report.read import RunReader

#: The rule of `ingest` for records that hold no page: requests, and what a crawler writes down of itself.
NO_PAGE = "record_type"
#: Rules of a stage that the funnel shows one by one.
STEPS = 14


@dataclass(frozen=True)
class FunnelRow:
    """A stage of the funnel. Counts are None where the stage does not have them."""

    stage: str
    status: str
    documents_in: int
    documents_out: int
    chars_in: int | None
    chars_out: int | None
    tokens: int | None = None

    @property
    def dropped(self) -> int:
        return self.documents_in - self.documents_out

    @property
    def share(self) -> float:
        """The share of the documents that came in which goes on."""
        return self.documents_out / self.documents_in if self.documents_in else 0.0


def characters_a_token(rows: list[FunnelRow]) -> float | None:
    """Of the documents that became tokens; None where there are none."""
    characters = [row.chars_out for row in rows if row.chars_out is not None]
    return characters[-1] / rows[-1].tokens if rows and rows[-1].tokens and characters and characters[-1] else None


def no_pages(decisions: dict[str, Decisions]) -> int:
    """Records of the crawl that hold no page."""
    rules = decisions["ingest"].rules if "ingest" in decisions else {}
    return rules[NO_PAGE].fired if NO_PAGE in rules else 0


def funnel(reader: RunReader, decisions: dict[str, Decisions]) -> list[FunnelRow]:
    """The rows of the data stages from their reports, then that of the token shards from their indexes."""
    rows = [FunnelRow(name, reader.stages[name].status, d.rows, d.kept, d.chars_in, d.chars_out) for name, d in decisions.items()]
    if reader.stages["tokens"].status != "missing":
        documents, tokens = token_totals(reader)
        if documents or tokens:
            last = rows[-1].documents_out if rows else documents
            rows.append(FunnelRow("tokens", reader.stages["tokens"].status, last, documents, None, None, tokens))
    return rows


@dataclass(frozen=True)
class Step:
    """Documents that a rule removed as the first that they failed, of `came_in` that came into the stage, and what was `left` after it.
    Over all steps of a stage they are what it dropped. `rules` are how many rules a step stands for."""

    stage: str
    name: str
    removed: int
    characters: int
    left: int
    came_in: int
    rules: int = 1


def steps(decisions: dict[str, Decisions]) -> list[Step]:
    """The rules of all stages in the order in which they decide; of each stage the `STEPS` that removed most, then all others together."""
    found: list[Step] = []
    for stage, d in decisions.items():
        removing = [rule for rule in d.rules.values() if rule.first]
        most = sorted(removing, key=lambda rule: (-rule.first, rule.name))[:STEPS]
        order = {rule.rule: place for place, rule in enumerate(d.thresholds)}
        shown = sorted(most, key=lambda rule: (order.get(rule.name, len(order)), -rule.first, rule.name))
        counts = [(rule.name, rule.first, rule.chars_first, 1) for rule in shown]
        others = [rule for rule in removing if rule not in most]
        if others:
            name = f"{len(others):,} other rule{'s' if len(others) > 1 else ''}"
            counts.append((name, sum(rule.first for rule in others), sum(rule.chars_first for rule in others), len(others)))
        unnamed = d.dropped - sum(rule.first for rule in removing)
        if unnamed > 0:
            counts.append(("(no rule named)", unnamed, 0, 0))
        left = d.rows
        for name, removed, characters, rules in counts:
            left -= removed
            found.append(Step(stage, name, removed, characters, left, d.rows, rules))
    return found


def token_totals(reader: RunReader) -> tuple[int, int]:
    """Documents (each once, however often a mixture repeats it) and tokens in all splits."""
    documents = tokens = 0
    for description in token_splits(reader).values():
        documents += int(first(description, "documents", "total_documents", default=0))
        tokens += int(first(description, "tokens", "total_tokens", default=0))
    return sum(task.counts.get("kept", 0) for task in reader.stages["tokens"].tasks) or documents, tokens


def token_splits(reader: RunReader) -> dict[str, dict[str, Any]]:
    """The `shards.json` of each split that is there."""
    found = {}
    for split in ("train", "validation"):
        description = reader.json(f"tokens/{split}/shards.json", dict)
        if description:
            found[split] = description
    return found


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
    components = (reader.json("tokens/plan.json", dict) or {}).get("mixture")
    for told in components if isinstance(components, list) else []:
        with suppress(KeyError, TypeError, ValueError, OverflowError):  # a damaged file: what can be read of it is shown
            wanted, there, tokens, short = (int(told[name]) for name in ("wanted", "there", "tokens", "short"))
            found.append(Component(str(told["name"]), wanted, there, tokens, float(told["epochs"]), short))
    return found


def first(values: dict[str, Any], *keys: str, default: Any = None) -> Any:
    """The first of `keys` that `values` has."""
    return next((values[key] for key in keys if values.get(key) is not None), default)
