"""Reads the JSON files about tokens: the token shards, their mixture, how documents are packed into rows, and the judged tokenizers."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from corpusmill.report.read import RunReader

PLAN = "tokens/plan.json"


def shards_file(split: str) -> str:
    return f"tokens/{split}/shards.json"


def token_splits(reader: RunReader) -> dict[str, dict[str, Any]]:
    """Returns the `shards.json` of each split that is there."""
    found = {split: reader.json(shards_file(split), dict) for split in ("train", "validation")}
    return {split: description for split, description in found.items() if description}


@dataclass(frozen=True)
class Packing:
    """A packing plan: how the documents of a split fill rows of `length` tokens."""

    split: str
    length: int
    rows: int
    padding: int
    waste: float


def packings(splits: dict[str, dict[str, Any]]) -> list[Packing]:
    """Returns the packing plans in the `shards.json` of each split."""
    found = []
    for split, description in splits.items():
        for plan in description.get("packing") or []:
            with suppress(KeyError, TypeError, ValueError, OverflowError):  # skips entries that are damaged
                found.append(Packing(split, int(plan["length"]), int(plan["rows"]), int(plan["padding"]), float(plan["waste"])))
    return found


@dataclass(frozen=True)
class Component:
    """A component of a mixture: the tokens wanted from it, those that it has, those used, and those missing because of `max_epochs`."""

    name: str
    wanted: int
    there: int
    tokens: int
    epochs: float
    short: int


def mixture(reader: RunReader) -> list[Component]:
    """Returns the mixture in the plan of the token shards; empty without one."""
    found = []
    components = (reader.json(PLAN, dict) or {}).get("mixture")
    for component in components if isinstance(components, list) else []:
        with suppress(KeyError, TypeError, ValueError, OverflowError):  # skips entries that are damaged
            wanted, there, tokens, short = (int(component[name]) for name in ("wanted", "there", "tokens", "short"))
            found.append(Component(str(component["name"]), wanted, there, tokens, float(component["epochs"]), short))
    return found


QUALITY = "tokenizer/quality.json"
#: The value of `pattern` in `QUALITY` for a tokenizer that was not trained in this run.
TAKEN_OVER = "given"


@dataclass(frozen=True)
class Figures:
    """The size of some text, and a tokenizer's figures on it (None if unknown)."""

    documents: int
    utf8_bytes: int
    tokens: int
    bytes_per_token: float | None
    words: int
    tokens_per_word: float | None
    words_split: float | None

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Figures":
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer's figures on the judged text: overall, by language, and by host."""

    name: str
    all: Figures
    languages: dict[str, Figures]
    hosts: dict[str, Figures]

    def groups(self, by: str) -> dict[str, Figures]:
        return self.languages if by == "language" else self.hosts


@dataclass(frozen=True)
class Judgement:
    """The comparison of tokenizers in `quality.json`. The first of `tokenizers` is the run's own."""

    vocabulary_size: int
    held_out: bool
    tokenizers: list[Tokenizer]
    unused: int = 0
    unused_bytes: int = 0
    below: int = 0
    rare: int = 0
    never_produced: int = 0
    #: Whether the tokenizer comes from outside the run, so that its training text is unknown.
    taken_over: bool = False

    def groups(self, by: str) -> list[str]:
        """Returns the languages or hosts, those with most text first."""
        return list(self.tokenizers[0].groups(by))


def judgement(quality: dict[str, Any]) -> Judgement:
    """Reads the content of `quality.json`. Raises KeyError, TypeError or AttributeError if its form is not the one that the stage
    writes."""
    tokenizers = [
        Tokenizer(short_name(name), Figures.of(found), *({n: Figures.of(v) for n, v in found[by].items()} for by in ("languages", "hosts")))
        for name, found in quality["tokenizers"].items()
    ]
    usage, judged = quality.get("usage"), quality["judged"]
    if not tokenizers:
        raise KeyError("tokenizers")
    taken_over = quality.get("pattern") == TAKEN_OVER
    if usage is None:
        return Judgement(quality["vocabulary_size"], judged["held_out"], tokenizers, taken_over=taken_over)
    rare, never = usage["undertrained"], usage["never_produced"]
    return Judgement(
        quality["vocabulary_size"], judged["held_out"], tokenizers, usage["unused_tokens"], usage["unused_bytes"], rare["below"],
        rare["tokens"], never["tokens"], taken_over,
    )  # fmt: skip


def read_judgement(reader: RunReader) -> Judgement | None:
    """Reads `quality.json`; None if the run has none, or (with a warning) if it can't be read."""
    quality = reader.json(QUALITY, dict)
    if quality is None:
        return None
    try:
        return judgement(quality)
    except (KeyError, TypeError, AttributeError) as error:
        reader.warn(f"{QUALITY}: not a valid result of judging a tokenizer ({type(error).__name__}: {error}), so it is left out.")
        return None


def short_name(name: str) -> str:
    """Returns a tokenizer's name; for a path its last two parts."""
    return "/".join(name.rsplit("/", 2)[-2:]) if "/" in name else name


def judged_text(found: Judgement) -> str:
    """Says in words on which text the tokenizers were judged."""
    total = found.tokenizers[0].all
    which = "that it was not trained on" if found.held_out else "of the sample that it was trained on (no others are left)"
    which = "of the run" if found.taken_over else which
    return f"{total.documents:,} documents {which}, {total.utf8_bytes / 1e6:,.1f} MB of text"


def compression(figures: Figures) -> str:
    return "–" if figures.bytes_per_token is None else f"{figures.bytes_per_token:.2f}"


def fertility(figures: Figures) -> str:
    return "–" if figures.tokens_per_word is None else f"{figures.tokens_per_word:.2f}"


def split(figures: Figures) -> str:
    return "–" if figures.words_split is None else f"{figures.words_split:.1%}"
