"""What a model can't do, in plain words, as far as the run's figures say it."""

from typing import Any

from corpusmill.report.queries.summary import Summary
from corpusmill.report.queries.training import as_number
from corpusmill.report.read import RunReader
from corpusmill.report.tables import number
from corpusmill.train.architecture import Architecture
from corpusmill.train.card_facts import base_model, chain

#: Below this a model is not expected to know things, or to follow an argument.
SMALL = 1_000_000_000
#: Tokens a parameter with which a model of a given cost is best (https://arxiv.org/abs/2203.15556).
ENOUGH = 20
#: A host with more than this share of the text has formed the model.
ONE_HOST = 0.2


def limitations(summary: Summary, stage: str, arch: Architecture) -> list[str]:
    reader, stages = summary.reader, chain(summary.reader, stage)
    return [
        *_size(arch, reader, stages),
        *(_data(summary) if "pretrain" in stages else []),
        *_tuning(reader, stages),
        *(_safety(summary) if reader.present() else []),
        *(["Whether alignment changed the toxicity of its answers was not measured."] if stage == "align" and not _judged(reader) else []),
    ]


def _size(arch: Architecture, reader: RunReader, stages: list[str]) -> list[str]:
    found, parameters = [], arch.parameters()
    if parameters < SMALL:
        found.append(
            f"It is small ({number(parameters)} parameters). What it writes can look like its training text and be false or without sense: "
            "use it for study and tests, and for nothing where an answer has to be right."
        )
    if base := base_model(reader, stages[0]):
        found.append(
            f"It was made from {base}, of whose training this run knows nothing: what that model can't do or does wrong, it may, too."
        )
    tokens = as_number((reader.json("pretrain/metrics.json", dict) or {}).get("tokens"))
    if "pretrain" in stages and tokens and tokens < ENOUGH * parameters:
        found.append(
            f"It has seen {number(int(tokens))} tokens, {tokens / parameters:.2g} for each parameter; about {ENOUGH} are usual, so with "
            "more text the same model would be better."
        )
    return [*found, f"It reads and writes at most {number(arch.context)} tokens at a time."]


def _data(summary: Summary) -> list[str]:
    found = []
    kept = next((step["language"].get("keep") for step in summary.reader.settings("filter").get("steps") or []
                 if isinstance(step, dict) and isinstance(step.get("language"), dict)), None)  # fmt: skip
    if kept:
        found.append(f"Only documents whose language was taken for {number(kept)} went into it; it does not know others.")
    if summary.tokenizer and (hosts := summary.tokenizer.tokenizers[0].hosts):
        total, (host, largest) = summary.tokenizer.tokenizers[0].all.tokens, max(hosts.items(), key=lambda item: (item[1].tokens, item[0]))
        if total and largest.tokens > ONE_HOST * total:
            found.append(
                f"{largest.tokens / total:.0%} of the tokens that its tokenizer was judged on come from {host}, and the model has the "
                "views and habits of its sources."
            )
    bits = (summary.reader.json("pretrain/metrics.json", dict) or {}).get("validation")
    if isinstance(bits, dict) and as_number(bits.get("documents")):
        found.append(
            f"Bits per byte were measured on {number(bits['documents'])} held-out documents of the same sources; text from elsewhere is "
            "predicted worse."
        )
    return found


def _tuning(reader: RunReader, stages: list[str]) -> list[str]:
    found = []
    if "sft" in stages and not reader.settings("sft").get("files"):
        found.append("Its instructions were made by rules from the run's own documents, not by people: it has learned their forms only.")
    if "align" in stages and not reader.settings("align").get("files"):
        kinds = reader.settings("align").get("pairs_from") or ["corrupted"]
        found.append(f"Its preferences were made from the run's own documents ({number(kinds)}); no person has judged an answer.")
    return found


def _safety(summary: Summary) -> list[str]:
    steps = {name for step in summary.reader.settings("filter").get("steps") or [] if isinstance(step, dict) for name in step}
    found = []
    if "toxicity" in steps:
        decided = summary.decisions.get("filter")
        rules = {rule.rule for rule in decided.thresholds if rule.step == "toxicity"} if decided else set()
        dropped = sum(count.fired for count in decided.rules.values() if count.name in rules) if decided else 0
        found.append(
            f"A toxicity classifier, which errs in both directions, dropped {number(dropped)} documents: the model can write offensive "
            "text."
        )
    else:
        found.append("Nothing was done against offensive documents, so the model can write such text.")
    if "pii" in steps:
        found.append("Addresses, numbers and secrets were replaced by patterns before training; what no pattern knows may be left.")
    else:
        found.append("Personal data was not removed from the documents.")
    return found


def _judged(reader: RunReader) -> Any:
    return (reader.json("align/judged.json", dict) or {}).get("scores")
