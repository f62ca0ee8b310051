"""Writes the model card of an exported model: Markdown with Hugging Face's front matter, from the run's own records.

Nothing is measured again, and the card holds no times or machines, so equal runs have equal cards. Text of documents and models is in code
blocks that it can't end, or is escaped for Markdown. The sentences are in `model_card.md.jinja`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from string import Formatter
from typing import Any

from corpusmill.pipeline.config import digest
from corpusmill.report.card.facts import Row, dedup_rows, rule_rows, tokenizer_rows, toxic
from corpusmill.report.markdown import environment, front_matter
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.training import Benchmark, as_number, flatten
from corpusmill.report.read import TRAINED, RunReader
from corpusmill.report.tables import number
from corpusmill.train.checkpoint import to_hugging_face
from corpusmill.train.options import Architecture

# ---- the card ----------------------------------------------------------------------------------------

WEIGHTS = "model/model.safetensors"
TITLES = {"pretrain": "Pre-training", "sft": "Instruction tuning", "align": "Preference alignment"}
#: Sampled texts in the card.
SAMPLES = 3
#: A smaller model is not expected to know facts or to follow an argument.
SMALL = 1_000_000_000
#: Tokens per parameter with which a model is best for its cost (https://arxiv.org/abs/2203.15556).
ENOUGH = 20
#: A host with a larger share of the text is named as one that shaped the model.
ONE_HOST = 0.2


def model_card(run: str, stage: str, arch: Architecture, name: str, license_: str | None = None) -> str:
    """Returns the card of the model that `stage` made. Raises InputError if the folder is not a run."""
    summary = read_summary(run, deep=False)
    reader = summary.reader
    chain, models, steps = training_chain(reader, stage), fresh(summary), dict(reader.steps())
    base, trained_on = base_model(reader, chain[0]), facts_of(reader, "pretrain") if "pretrain" in chain else {}
    kept = [str(language) for language in steps.get("language", {}).get("keep") or []]
    judged = summary.tokenizer.groups("language") if summary.tokenizer else []  # of the tokenizer's texts, most text first
    languages = kept or [name for name in judged if re.fullmatch(r"[a-z]{2,3}", name)]
    inputs = reader.description.get("inputs")
    facts: dict[str, Any] = {
        "name": name, "stage": stage, "chats": stage != "pretrain", "chain": chain, "base": base, "summary": summary, "arch": arch,
        "parameters": arch.parameters(),
        "shape": shape_rows(arch), "languages": languages, "kept": kept, "steps": steps, "data": reader.present(),
        "documents": " and ".join(word for data, word in (("filter", "filtered"), ("dedup", "deduplicated")) if reader.present([data])),
        "pretrained_on": trained_on.get("tokens"), "validated_on": trained_on.get("validation.documents"),
        "rules": {name: rule_rows(decisions) for name, decisions in summary.decisions.items() if name != "dedup"},
        "dedup": dedup_rows(summary), "tokenizer": tokenizer_rows(summary),
        "inputs": [str(path) for path in inputs] if isinstance(inputs, list) else [],
        "trainings": [(TITLES[trained], training_rows(reader, trained)) for trained in chain],
        "models": models, "measured": measured(summary, models), "samples": samples(reader, stage) if stage in models else [],
        "changed": [model for model in summary.scores.models if model not in models],
        "small": SMALL, "enough": ENOUGH, "one_host": _one_host(summary), "toxic": toxic(summary),
        "own": {tuned: facts_of(reader, tuned)["source"] for tuned in chain if not reader.settings(tuned).get("files")},
        "stale": reader.stale.sentence if reader.stale and stage in reader.stale.because else None,
        "identity": identity(reader, stage), "versions": sorted((reader.description.get("versions") or {}).items()),
    }  # fmt: skip
    text = environment("corpusmill.report").get_template("model_card.md.jinja").render(facts)
    kind = to_hugging_face(arch, eos_token_id=0, bos_token_id=0, pad_token_id=0, dtype="float32")["model_type"]
    datasets = (re.match(r"hf://datasets/([^/@]+/[^/@]+)", path) for path in facts["inputs"])
    header = {  # https://huggingface.co/docs/hub/model-cards
        "license": license_ or "unknown",
        "language": languages,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base,
        "tags": [kind, "corpusmill", *(["conversational"] if stage != "pretrain" else []), *(tag for tag in chain if tag != "pretrain")],
        "datasets": list(dict.fromkeys(match[1] for match in datasets if match)),
        "model-index": model_index(summary, stage, name) if stage in models else [],
    }
    return front_matter(header) + text


def training_chain(reader: RunReader, stage: str) -> list[str]:
    """Returns the trainings that made the model of `stage`, the first one first. The chain begins at a stage that was given a model, whose
    history is unknown."""
    trained = reader.present(TRAINED[: TRAINED.index(stage) + 1])
    begins = max((place for place, tuned in enumerate(trained) if base_model(reader, tuned)), default=0)
    return trained[begins:]


def base_model(reader: RunReader, stage: str) -> str | None:
    """Returns the name (not the path) of the model that a stage was given to train further; None if it is the run's own."""
    given = reader.settings(stage).get("model")
    if isinstance(given, dict):  # pre-training has a new model's shape there, or the folder of a given one
        given = given.get("folder")
    if not given:
        return None
    *before, name = PurePath(str(given)).parts or (".",)
    return "-".join(before[-2:]) if name == "model" and before[-1:] and before[-1] in TRAINED else name  # RUN/STAGE/model


def fresh(summary: Summary) -> list[str]:
    """Returns the models whose scores were measured on their present weights; a card must not show the scores of others."""
    reader = summary.reader
    measured = {(ref.path, ref.fingerprint) for task in reader.stages["evaluate"].tasks for ref in task.inputs}
    return [model for model in summary.scores.models if (f"{model}/{WEIGHTS}", outputs(reader, model).get(WEIGHTS)) in measured]


def outputs(reader: RunReader, stage: str) -> dict[str, str]:
    """Returns the sha256 of a stage's output files, by path in the stage."""
    return {output.path: output.sha256 for task in reader.stages[stage].tasks for output in task.outputs}


def identity(reader: RunReader, stage: str) -> list[Row]:
    """Returns hashes that identify the exported model."""
    tasks = reader.stages[stage].tasks
    rows = [
        ("identity of the training (its inputs, configuration and code)",
         next((task.identity for task in tasks if any(output.path == WEIGHTS for output in task.outputs)), None)),
        ("weights of the run, sha256", outputs(reader, stage).get(WEIGHTS)),
        ("tokenizer of the run, sha256", (reader.json("tokens/train/shards.json", dict) or {}).get("tokenizer_sha256")),
        ("recipe with all its defaults, sha256", digest(reader.description.get("recipe"))),
    ]  # fmt: skip
    return [(label, value) for label, value in rows if value]


def _one_host(summary: Summary) -> tuple[str, float] | None:
    """Returns the host with most of the tokens that the tokenizer was judged on, and its share, where that is large."""
    judged = summary.tokenizer.tokenizers[0] if summary.tokenizer else None
    if judged is None or not judged.hosts or not judged.all.tokens:
        return None
    host, largest = max(judged.hosts.items(), key=lambda item: (item[1].tokens, item[0]))
    share = largest.tokens / judged.all.tokens
    return (host, share) if share > ONE_HOST else None


# ---- rows of tables ----------------------------------------------------------------------------------
#
# A row is a label, and a text with the names of values in it. A row is left out where a value is not known.

#: Of each training, from its `metrics.json` and (`recipe.`) its section of the recipe: rows above and below those of every training.
TRAININGS: dict[str, tuple[list[Row], list[Row]]] = {
    "pretrain": ([
        ("optimiser steps", "{steps}"),
        ("tokens seen", "{tokens}"),
        ("passes over the training tokens", "{epochs}"),
        ("rows in a step", "{recipe.batch}"),
        ("rows are", "{recipe.packing}"),
        ("attention across documents", "{recipe.document_mask}"),
    ], [("loss over the last steps", "{loss:.3f} nats a token")]),
    "sft": ([
        ("examples", "{examples}"),
        ("made from", "{source}"),
        ("held out", "{held_out_examples}"),
        ("chat template", "{recipe.template}"),
        ("optimiser steps", "{steps}"),
        ("targets learned", "{target_tokens}"),
        ("rows of packed examples in a step", "{recipe.batch}"),
    ], [("loss on held-out examples", "{held_out_loss_before:.3f} before, {held_out_loss_after:.3f} after")]),
    "align": ([
        ("preference pairs", "{pairs}"),
        ("made from", "{source}"),
        ("held out", "{held_out_pairs}"),
        ("loss", "{loss}"),
        ("beta", "{beta}"),
        ("weight of the chosen completion's own loss", "{recipe.nll_weight}"),
        ("optimiser steps", "{steps}"),
        ("pairs in a step", "{recipe.batch}"),
    ], [
        ("held-out pairs ranked right", "{held_out_before.preference_accuracy:.1%} before, {held_out_after.preference_accuracy:.1%} after"),
        ("loss on held-out pairs", "{held_out_before.loss:.3f} before, {held_out_after.loss:.3f} after"),
        ("margin of rewards on held-out pairs", "{held_out_before.margin:.3f} before, {held_out_after.margin:.3f} after"),
    ]),
}  # fmt: skip
EVERY_TRAINING: list[Row] = [
    ("optimiser and peak learning rate", "AdamW, {adamw.lr}"),
    ("optimiser and peak learning rate", "Muon, {muon.muon_lr}, for matrices inside the layers; AdamW, {muon.lr}, for the rest"),
    ("trained", "a LoRA of rank {lora.rank}, alpha {lora.alpha}, on {lora.targets}"),
    ("schedule", "{recipe.loop.schedule}, after {recipe.loop.warmup} steps of warm-up"),
    ("weight decay", "{recipe.loop.optimizer.weight_decay}"),
    ("largest gradient norm", "{recipe.loop.clip}"),
    ("precision", "{precision}"),
    ("seed", "{recipe.seed}"),
    ("steps skipped by guards", "{skipped}"),
    ("steps skipped by guards", "{skipped_steps}"),
]
#: Words for values of the recipe and of `metrics.json`.
WORDS = {
    "recipe.packing": {"stream": "windows of the token stream", "documents": "whole documents, packed"},
    "recipe.document_mask": {"True": "no", "False": "yes"},
    "loss": {"sigmoid": "DPO", "conservative": "conservative DPO", "robust": "robust DPO", "mean-sigmoid": "length-normalised DPO",
             "ipo": "IPO", "orpo": "ORPO", "simpo": "SimPO"},
}  # fmt: skip


class _Filler(Formatter):
    """Fills in values by dotted names: a number with a format as such, other values as the report's tables show them."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if not format_spec:
            return number(value)
        if (known := as_number(value)) is None:
            raise KeyError(format_spec)
        return format(known, format_spec)


def filled(text: str, facts: Mapping[str, Any]) -> str | None:
    """Returns a text with its values; None where one is not known."""
    try:
        return _Filler().vformat(text, (), {name: value for name, value in facts.items() if value is not None})
    except KeyError:
        return None


def facts_of(reader: RunReader, stage: str) -> dict[str, Any]:
    """Returns what is known of a training, by the names that its rows use."""
    settings, metrics = reader.settings(stage), reader.json(f"{stage}/metrics.json", dict) or {}
    optimizer, lora = (settings.get("loop") or {}).get("optimizer") or {}, settings.get("lora") or {}
    given = {"recipe": settings, "beta": settings.get("beta"), **metrics, str(optimizer.get("kind", "adamw")): optimizer}
    facts = dict(flatten(given | ({"lora": lora} if lora.get("rank") else {})))
    own = {"sft": "tasks built from the run's own documents (title, continuation, question)", "align": "the run's own documents"}
    facts["source"] = ", ".join(map(str, settings.get("files") or [])) or own.get(stage)
    return facts | {name: words[str(facts[name])] for name, words in WORDS.items() if str(facts.get(name)) in words}


def training_rows(reader: RunReader, stage: str) -> list[Row]:
    """Returns the training's data, settings and results."""
    facts, base = facts_of(reader, stage), base_model(reader, stage)
    above, below = TRAININGS[stage]
    rows = [(label, filled(text, facts)) for label, text in (*above, *EVERY_TRAINING, *below)]
    return [*([("tuned from", base)] if base else []), *((label, value) for label, value in rows if value is not None)]


def shape_rows(arch: Architecture) -> list[Row]:
    heads = f"{arch.heads} of width {arch.head_dim}, {arch.kv_heads} for keys and values"
    rows = [
        ("parameters", number(arch.parameters())), ("layers", number(arch.layers)), ("width", number(arch.width)), ("heads", heads),
        ("width inside SwiGLU", number(arch.ffn)), ("context", f"{number(arch.context)} tokens"),
        ("embedding and head", "the same weights" if arch.tied else "weights of their own"),
    ]  # fmt: skip
    rows += [("sliding window", f"{number(arch.window)} tokens")] if arch.window else []
    return rows + ([("norm of queries and keys", "yes")] if arch.qk_norm else [])


# ---- scores and samples ------------------------------------------------------------------------------

#: The scores of `scores.json` besides benchmarks, as rows.
SCORES: list[Row] = [
    ("bits per byte", "{bits_per_byte.value:.3f} ({bits_per_byte.low:.3f} to {bits_per_byte.high:.3f})"),
    ("held-out preferences ranked right", "{preferences.accuracy:.1%} ({preferences.low:.1%} to {preferences.high:.1%})"),
    ("tokens in a sampled answer", "{answer_tokens:.1f}"),
]
TEXT = "{bits_per_byte.bytes:,.0f} bytes of {bits_per_byte.documents:,.0f} held-out documents of the run"


def measured(summary: Summary, models: list[str]) -> list[tuple[str, list[str | None], str]]:
    """Returns every score, for benchmarks all metrics: its name, its value of each of these models (None if it has none), and a note."""
    facts = [dict(flatten(summary.scores.sections[model])) for model in models]
    text = next(filter(None, (filled(TEXT, of) for of in facts)), "")
    rows = [(name, [filled(form, of) for of in facts], text if name == SCORES[0][0] else "") for name, form in SCORES]
    for task in summary.benchmarks.tasks:
        for metric, of in task.scores.items():
            values = [of[model].text(metric) if model in of else None for model in models]
            rows.append((f"{task.title}, {metric}", values, _task_note(task)))
    return [row for row in rows if any(value is not None for value in row[1])]


def _task_note(task: Benchmark) -> str:
    parts = [f"{task.items:,} items" + (f" of {task.total:,}" if task.total != task.items else "")]
    parts += [f"{task.shots} solved examples before each"] if task.shots else []
    parts += [f"guessing gives {task.chance:.1%}"] if task.chance is not None else []
    parts += [f"{task.found:,} of {task.searched:,} are in the run's documents"] if task.searched else []
    return ", ".join(parts)


def model_index(summary: Summary, model: str, name: str) -> list[dict[str, Any]]:
    """Returns the scores of one model as Hugging Face's `model-index`."""
    bits = as_number(dict(flatten(summary.scores.sections[model])).get("bits_per_byte.value"))
    found = [("held-out documents of the run", "held-out", "bits_per_byte", bits)] if bits is not None else []
    for task in summary.benchmarks.tasks:
        found += [(task.title, task.name, metric, of[model].value) for metric, of in task.scores.items() if model in of]
    results = [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": dataset, "type": kind},
            "metrics": [{"type": metric, "value": value, "name": metric}],
        }
        for dataset, kind, metric, value in found
    ]
    return [{"name": name, "results": results}] if results else []


def samples(reader: RunReader, model: str) -> list[tuple[str, str]]:
    """Returns prompts with the model's text: answers where it answers, else continuations."""
    found = (reader.json("evaluate/samples.json", dict) or {}).get(model)
    given = [sample for sample in found if isinstance(sample, dict)] if isinstance(found, list) else []
    kind = "answer" if any(sample.get("kind") == "answer" for sample in given) else "continuation"
    return [(str(s.get("prompt", "")), str(s.get("text", ""))) for s in given if s.get("kind") == kind][:SAMPLES]
