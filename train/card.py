"""The model card of an exported model: Markdown under Hugging Face's front matter, written from the run's own records.

Nothing in it is measured anew, and it holds no times or machines: equal runs have equal cards. What comes from documents or
from models stands in code blocks that it can't end, or is escaped for Markdown.
"""

import re
from typing import Any

from corpusmill.pipeline.config import digest
from corpusmill.report.card import facts as data_facts
from corpusmill.report.card.state import outputs
from corpusmill.report.markdown import environment
from corpusmill.report.markdown import front_matter as header
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.read import RunReader
from corpusmill.train import card_facts, card_scores
from corpusmill.train.architecture import Architecture
from corpusmill.train.card_limits import limitations
from corpusmill.train.card_state import WEIGHTS, measured_models
from corpusmill.train.hugging_face import to_hugging_face

TITLES = {"pretrain": "Pre-training", "sft": "Instruction tuning", "align": "Preference alignment"}
TEMPLATE = "card.md.jinja"


def model_card(run: str, stage: str, arch: Architecture, name: str, license_: str | None = None) -> str:
    """The card of the model that `stage` left. Raises InputError where the folder is no run."""
    summary = read_summary(run, deep=False)
    reader = summary.reader
    chain = card_facts.chain(reader, stage)
    models = fresh(summary)
    facts = {
        "name": name,
        "stage": stage,
        "chain": chain,
        "base": card_facts.base_model(reader, chain[0]),
        "chats": stage != "pretrain",
        "shape": card_facts.shape_rows(arch),
        "summary": summary,
        "rules": {name: data_facts.rule_rows(decisions) for name, decisions in summary.decisions.items() if name != "dedup"},
        "dedup": data_facts.dedup_rows(summary),
        "tokenizer": data_facts.tokenizer_rows(summary),
        "inputs": _inputs(reader),
        "trainings": [(TITLES[trained], card_facts.training_rows(reader, trained)) for trained in chain],
        "models": models,
        "measured": card_scores.measured(summary, models),
        "changed": [model for model in summary.scores.models if model not in models],
        "confidence": reader.settings("evaluate").get("confidence", 0.95),
        "judged_confidence": (reader.settings("align").get("judged") or {}).get("confidence", 0.95),
        "judged": card_scores.judged_rows(reader) if stage == "align" else [],
        "samples": card_scores.samples(reader, stage) if stage in models else [],
        "limits": limitations(summary, stage, arch),
        "stale": reader.stale.sentence if reader.stale and stage in reader.stale.because else None,
        "warnings": summary.warnings,
        "identity": _identity(reader, stage),
        "versions": sorted((reader.description.get("versions") or {}).items()),
        "languages": languages(summary),
        "parameters": arch.parameters(),
        "documents": " and ".join(word for stage, word in (("filter", "filtered"), ("dedup", "deduplicated")) if reader.present([stage])),
        "pretrained_on": (reader.json("pretrain/metrics.json", dict) or {}).get("tokens") if "pretrain" in chain else None,
    }
    return header(front_matter(summary, stage, arch, name, license_)) + environment("corpusmill.train").get_template(TEMPLATE).render(facts)


def front_matter(summary: Summary, stage: str, arch: Architecture, name: str, license_: str | None) -> dict[str, Any]:
    """What Hugging Face reads of a card (https://huggingface.co/docs/hub/model-cards)."""
    reader = summary.reader
    kind = to_hugging_face(arch, eos_token_id=0, bos_token_id=0, pad_token_id=0, dtype="float32")["model_type"]
    tags = [kind, "corpusmill", *(["conversational"] if stage != "pretrain" else [])]
    chain = card_facts.chain(reader, stage)
    tags += [trained for trained in chain if trained != "pretrain"]
    return {
        "license": license_ or "unknown",
        "language": languages(summary),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": card_facts.base_model(reader, chain[0]),
        "tags": tags,
        "datasets": _datasets(_inputs(reader)),
        "model-index": card_scores.model_index(summary, stage, name) if stage in fresh(summary) else [],
    }


def fresh(summary: Summary) -> list[str]:
    """The models whose scores are those of their weights as they are now."""
    measured = measured_models(summary.reader)
    return [model for model in summary.scores.models if model in measured]


def languages(summary: Summary) -> list[str]:
    """What the filter stage kept; else what the tokenizer was judged on, most text first."""
    for step in summary.reader.settings("filter").get("steps") or []:
        kept = (step.get("language") or {}).get("keep") if isinstance(step, dict) else None
        if kept:
            return [str(language) for language in kept]
    return [name for name in summary.tokenizer.groups("language") if re.fullmatch(r"[a-z]{2,3}", name)] if summary.tokenizer else []


def _inputs(reader: RunReader) -> list[str]:
    inputs = reader.description.get("inputs")
    return [str(path) for path in inputs] if isinstance(inputs, list) else []


def _datasets(inputs: list[str]) -> list[str]:
    """Those that lie on Hugging Face, by their names there."""
    found = (re.match(r"hf://datasets/([^/@]+/[^/@]+)", path) for path in inputs)
    return list(dict.fromkeys(match[1] for match in found if match))


def _identity(reader: RunReader, stage: str) -> list[tuple[str, str]]:
    """Hashes by which what was exported can be told from anything else."""
    trained = next((task.identity for task in reader.stages[stage].tasks if any(output.path == WEIGHTS for output in task.outputs)), "")
    rows = [("identity of the training (its inputs, configuration and code)", trained)] if trained else []
    weights = outputs(reader, stage).get(WEIGHTS)
    rows += [("weights of the run, sha256", weights)] if weights else []
    tokens = reader.json("tokens/train/shards.json", dict) or {}
    rows += [("tokenizer of the run, sha256", tokens["tokenizer_sha256"])] if tokens.get("tokenizer_sha256") else []
    return [*rows, ("recipe with all its defaults, sha256", digest(reader.description.get("recipe")))]
