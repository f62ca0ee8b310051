"""Writes the model card of an exported model: Markdown with Hugging Face's front matter, from the run's own records.

Nothing is measured again, and the card holds no times or machines, so equal runs have equal cards. Text of documents and models is in code
blocks that it can't end, or is escaped for Markdown.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from corpusmill.pipeline.config import digest
from corpusmill.report.card import facts as data_facts
from corpusmill.report.card.facts import Row
from corpusmill.report.markdown import environment
from corpusmill.report.markdown import front_matter as header
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.queries.training import Benchmark, as_number
from corpusmill.report.read import TRAINED, RunReader
from corpusmill.report.tables import number
from corpusmill.train.checkpoint import to_hugging_face
from corpusmill.train.options import Architecture

# ---- which models have scores of their own -----------------------------------------------------------
#
# A card must not show the scores of another model.

WEIGHTS = "model/model.safetensors"


def measured_models(reader: RunReader) -> set[str]:
    """Returns the stages whose present model is the one that `evaluate` measured."""
    measured = {(ref.path, ref.fingerprint) for task in reader.stages["evaluate"].tasks for ref in task.inputs}
    return {stage for stage in reader.stages if (f"{stage}/{WEIGHTS}", outputs(reader, stage).get(WEIGHTS)) in measured}


def outputs(reader: RunReader, stage: str) -> dict[str, str]:
    """Returns the sha256 of a stage's output files, by path in the stage."""
    return {output.path: output.sha256 for task in reader.stages[stage].tasks for output in task.outputs}


# ---- data and trainings ------------------------------------------------------------------------------
#
# Table rows about the data and the trainings. Every number is one of the report's.


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


def shape_rows(arch: Architecture) -> list[Row]:
    heads = f"{arch.heads} of width {arch.head_dim}, {arch.kv_heads} for keys and values"
    rows = [
        ("parameters", number(arch.parameters())), ("layers", number(arch.layers)), ("width", number(arch.width)), ("heads", heads),
        ("width inside SwiGLU", number(arch.ffn)), ("context", f"{number(arch.context)} tokens"),
        ("embedding and head", "the same weights" if arch.tied else "weights of their own"),
    ]  # fmt: skip
    rows += [("sliding window", f"{number(arch.window)} tokens")] if arch.window else []
    return rows + ([("norm of queries and keys", "yes")] if arch.qk_norm else [])


def training_rows(reader: RunReader, stage: str) -> list[Row]:
    """Returns the training's data, settings and results; steps and losses come from the stage's `metrics.json`."""
    metrics, settings = reader.json(f"{stage}/metrics.json", dict) or {}, reader.settings(stage)
    rows = _known(("tuned from", base_model(reader, stage)))
    rows += {"pretrain": _pretrain_rows, "sft": _sft_rows, "align": _align_rows}[stage](metrics, settings)
    rows += _loop_rows(settings.get("loop") or {}, settings.get("lora") or {})
    rows += _known(("seed", settings.get("seed")), ("steps skipped by guards", metrics.get("skipped", metrics.get("skipped_steps"))))
    return rows + _outcome(stage, metrics)


def _known(*rows: tuple[str, Any]) -> list[Row]:
    """Returns the rows that have a value."""
    return [(label, number(value)) for label, value in rows if value is not None]


def _pretrain_rows(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    return _known(
        ("optimiser steps", metrics.get("steps")),
        ("tokens seen", metrics.get("tokens")),
        ("passes over the training tokens", metrics.get("epochs")),
        ("rows in a step", settings.get("batch")),
        ("rows are", {"stream": "windows of the token stream", "documents": "whole documents, packed"}.get(str(settings.get("packing")))),
        ("attention across documents", None if "document_mask" not in settings else not settings["document_mask"]),
    )


def _sft_rows(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    return _known(
        ("examples", metrics.get("examples")),
        ("made from", _source(settings, "tasks built from the run's own documents (title, continuation, question)")),
        ("held out", metrics.get("held_out_examples")),
        ("chat template", settings.get("template")),
        ("optimiser steps", metrics.get("steps")),
        ("targets learned", metrics.get("target_tokens")),
        ("rows of packed examples in a step", settings.get("batch")),
    )


def _align_rows(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    kinds = settings.get("pairs_from") or ["corrupted"]
    return _known(
        ("preference pairs", metrics.get("pairs")),
        ("made from", _source(settings, f"the run's own documents ({number(kinds)})")),
        ("held out", metrics.get("held_out_pairs")),
        ("loss", LOSSES.get(str(metrics.get("loss")), metrics.get("loss"))),
        ("beta", metrics.get("beta", settings.get("beta"))),
        ("weight of the chosen completion's own loss", settings.get("nll_weight")),
        ("optimiser steps", metrics.get("steps")),
        ("pairs in a step", settings.get("batch")),
    )


LOSSES = {
    "sigmoid": "DPO", "conservative": "conservative DPO", "robust": "robust DPO", "mean-sigmoid": "length-normalised DPO", "ipo": "IPO",
    "orpo": "ORPO", "simpo": "SimPO",
}  # fmt: skip


def _source(settings: Mapping[str, Any], otherwise: str) -> str:
    files: Iterable[str] = settings.get("files") or []
    return ", ".join(map(str, files)) or otherwise


def _loop_rows(loop: Mapping[str, Any], lora: Mapping[str, Any]) -> list[Row]:
    optimizer = loop.get("optimizer") or {}
    if not optimizer:
        return []
    adamw = f"AdamW, {number(optimizer.get('lr'))}"
    if optimizer.get("kind") == "muon":
        adamw = f"Muon, {number(optimizer.get('muon_lr'))}, for matrices inside the layers; {adamw}, for the rest"
    rows = [("optimiser and peak learning rate", adamw)]
    if lora.get("rank"):
        rows.append(("trained", f"a LoRA of rank {lora['rank']}, alpha {number(lora.get('alpha'))}, on {number(lora.get('targets'))}"))
    return rows + _known(
        ("schedule", f"{loop.get('schedule')}, after {number(loop.get('warmup'))} steps of warm-up"),
        ("weight decay", optimizer.get("weight_decay")),
        ("largest gradient norm", loop.get("clip")),
        ("precision", "bf16 on CUDA, else fp32" if loop.get("precision") == "auto" else loop.get("precision")),
    )


def _outcome(stage: str, metrics: Mapping[str, Any]) -> list[Row]:
    if stage == "pretrain":
        loss = as_number(metrics.get("loss"))
        return _known(("loss over the last steps", None if loss is None else f"{loss:.3f} nats a token"))
    if stage == "sft":
        return _known(_changed("loss on held-out examples", metrics.get("held_out_loss_before"), metrics.get("held_out_loss_after"), ".3f"))
    before, after = (metrics.get(f"held_out_{when}") or {} for when in ("before", "after"))
    names = {"preference_accuracy": ("held-out pairs ranked right", ".1%"), "loss": ("loss on held-out pairs", ".3f"),
             "margin": ("margin of rewards on held-out pairs", ".3f")}  # fmt: skip
    return _known(*(_changed(label, before.get(key), after.get(key), form) for key, (label, form) in names.items()))


def _changed(label: str, before: Any, after: Any, form: str) -> tuple[str, str | None]:
    first, last = as_number(before), as_number(after)
    return label, None if first is None or last is None else f"{first:{form}} before, {last:{form}} after"


# ---- scores ------------------------------------------------------------------------------------------
#
# Table rows about evaluations and samples.

SAMPLES = 3


@dataclass(frozen=True)
class Measured:
    """A score of each model (None if it has none), and a note on it."""

    name: str
    values: list[str | None]
    note: str = ""


def measured(summary: Summary, models: list[str]) -> list[Measured]:
    """Returns every score of these models, for benchmarks all metrics."""
    scores = summary.scores.sections
    rows = [
        Measured("bits per byte", [_interval(_part(scores, m, "bits_per_byte"), "value", ".3f") for m in models], _text_note(scores)),
        Measured("held-out preferences ranked right", [_interval(_part(scores, m, "preferences"), "accuracy", ".1%") for m in models]),
        Measured("tokens in a sampled answer", [_plain(scores[m].get("answer_tokens"), ".1f") for m in models]),
    ]
    for task in summary.benchmarks.tasks:
        for metric, of in task.scores.items():
            values = [of[model].text(metric) if model in of else None for model in models]
            rows.append(Measured(f"{task.title}, {metric}", values, _task_note(task)))
    return [row for row in rows if any(value is not None for value in row.values)]


def model_index(summary: Summary, model: str, name: str) -> list[dict[str, Any]]:
    """Returns the scores of one model as Hugging Face's `model-index`."""
    results = []
    bits = as_number(_part(summary.scores.sections, model, "bits_per_byte").get("value"))
    if bits is not None:
        results.append(_result("held-out documents of the run", "held-out", "bits_per_byte", bits))
    for task in summary.benchmarks.tasks:
        results += [_result(task.title, task.name, metric, of[model].value) for metric, of in task.scores.items() if model in of]
    return [{"name": name, "results": results}] if results else []


def _result(dataset: str, kind: str, metric: str, value: float) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": dataset, "type": kind},
        "metrics": [{"type": metric, "value": value, "name": metric}],
    }


def samples(reader: RunReader, model: str) -> list[tuple[str, str]]:
    """Returns prompts with the model's text: answers where it answers, else continuations."""
    found = (reader.json("evaluate/samples.json", dict) or {}).get(model)
    given = [sample for sample in found if isinstance(sample, dict)] if isinstance(found, list) else []
    kind = "answer" if any(sample.get("kind") == "answer" for sample in given) else "continuation"
    return [(str(s.get("prompt", "")), str(s.get("text", ""))) for s in given if s.get("kind") == kind][:SAMPLES]


def _part(scores: Mapping[str, dict[str, Any]], model: str, part: str) -> dict[str, Any]:
    value = scores.get(model, {}).get(part)
    return value if isinstance(value, dict) else {}


def _plain(value: Any, form: str) -> str | None:
    known = as_number(value)
    return None if known is None else f"{known:{form}}"


def _interval(values: Mapping[str, Any], key: str, form: str) -> str | None:
    value, low, high = (_plain(values.get(name), form) for name in (key, "low", "high"))
    return value if low is None or high is None or value is None else f"{value} ({low} to {high})"


def _text_note(scores: Mapping[str, dict[str, Any]]) -> str:
    bits = next((part for model in scores if (part := _part(scores, model, "bits_per_byte"))), {})
    documents, size = _plain(bits.get("documents"), ",.0f"), _plain(bits.get("bytes"), ",.0f")
    return f"{size} bytes of {documents} held-out documents of the run" if documents and size else ""


def _task_note(task: Benchmark) -> str:
    parts = [f"{task.items:,} items" + (f" of {task.total:,}" if task.total != task.items else "")]
    parts += [f"{task.shots} solved examples before each"] if task.shots else []
    parts += [f"guessing gives {task.chance:.1%}"] if task.chance is not None else []
    if task.searched:
        parts.append(f"{task.found:,} of {task.searched:,} are in the run's documents")
    return ", ".join(parts)


# ---- limits ------------------------------------------------------------------------------------------
#
# Sentences on the limits of a model. Each follows from a number of the run.

#: A smaller model is not expected to know facts or to follow an argument.
SMALL = 1_000_000_000
#: Tokens per parameter with which a model is best for its cost (https://arxiv.org/abs/2203.15556).
ENOUGH = 20
#: A host with a larger share of the text is named as one that shaped the model.
ONE_HOST = 0.2


def limitations(summary: Summary, stage: str, arch: Architecture) -> list[str]:
    reader, stages = summary.reader, training_chain(summary.reader, stage)
    return [
        *_size(arch, reader, stages),
        *(_data(summary) if "pretrain" in stages else []),
        *_tuning(reader, stages),
        *(_safety(summary) if reader.present() else []),
        *(["Whether alignment changed the toxicity of its answers was not measured."] if stage == "align" else []),
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
    if "pretrain" in stages and not base and tokens and tokens < ENOUGH * parameters:
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
        found.append("Addresses, numbers and secrets were replaced by patterns before training; those that no pattern matches remain.")
    else:
        found.append("Personal data was not removed from the documents.")
    return found


# ---- the card ----------------------------------------------------------------------------------------

TITLES = {"pretrain": "Pre-training", "sft": "Instruction tuning", "align": "Preference alignment"}
TEMPLATE = "model_card.md.jinja"


def model_card(run: str, stage: str, arch: Architecture, name: str, license_: str | None = None) -> str:
    """Returns the card of the model that `stage` made. Raises InputError if the folder is not a run."""
    summary = read_summary(run, deep=False)
    reader = summary.reader
    chain = training_chain(reader, stage)
    models = fresh(summary)
    facts = {
        "name": name,
        "stage": stage,
        "chain": chain,
        "base": base_model(reader, chain[0]),
        "chats": stage != "pretrain",
        "shape": shape_rows(arch),
        "summary": summary,
        "rules": {name: data_facts.rule_rows(decisions) for name, decisions in summary.decisions.items() if name != "dedup"},
        "dedup": data_facts.dedup_rows(summary),
        "tokenizer": data_facts.tokenizer_rows(summary),
        "inputs": _inputs(reader),
        "trainings": [(TITLES[trained], training_rows(reader, trained)) for trained in chain],
        "models": models,
        "measured": measured(summary, models),
        "changed": [model for model in summary.scores.models if model not in models],
        "samples": samples(reader, stage) if stage in models else [],
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
    text = environment("corpusmill.report").get_template(TEMPLATE).render(facts)
    return header(front_matter(summary, stage, arch, name, license_)) + text


def front_matter(summary: Summary, stage: str, arch: Architecture, name: str, license_: str | None) -> dict[str, Any]:
    """Returns the header that Hugging Face reads (https://huggingface.co/docs/hub/model-cards)."""
    reader = summary.reader
    kind = to_hugging_face(arch, eos_token_id=0, bos_token_id=0, pad_token_id=0, dtype="float32")["model_type"]
    tags = [kind, "corpusmill", *(["conversational"] if stage != "pretrain" else [])]
    chain = training_chain(reader, stage)
    tags += [trained for trained in chain if trained != "pretrain"]
    return {
        "license": license_ or "unknown",
        "language": languages(summary),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base_model(reader, chain[0]),
        "tags": tags,
        "datasets": _datasets(_inputs(reader)),
        "model-index": model_index(summary, stage, name) if stage in fresh(summary) else [],
    }


def fresh(summary: Summary) -> list[str]:
    """Returns the models whose scores were measured on their present weights."""
    measured = measured_models(summary.reader)
    return [model for model in summary.scores.models if model in measured]


def languages(summary: Summary) -> list[str]:
    """Returns the languages that the filter stage kept; else those of the text that the tokenizer was judged on, most text first."""
    for step in summary.reader.settings("filter").get("steps") or []:
        kept = (step.get("language") or {}).get("keep") if isinstance(step, dict) else None
        if kept:
            return [str(language) for language in kept]
    return [name for name in summary.tokenizer.groups("language") if re.fullmatch(r"[a-z]{2,3}", name)] if summary.tokenizer else []


def _inputs(reader: RunReader) -> list[str]:
    inputs = reader.description.get("inputs")
    return [str(path) for path in inputs] if isinstance(inputs, list) else []


def _datasets(inputs: list[str]) -> list[str]:
    """Returns the inputs that are data sets on Hugging Face, by their names there."""
    found = (re.match(r"hf://datasets/([^/@]+/[^/@]+)", path) for path in inputs)
    return list(dict.fromkeys(match[1] for match in found if match))


def _identity(reader: RunReader, stage: str) -> list[tuple[str, str]]:
    """Returns hashes that identify the exported model."""
    trained = next((task.identity for task in reader.stages[stage].tasks if any(output.path == WEIGHTS for output in task.outputs)), "")
    rows = [("identity of the training (its inputs, configuration and code)", trained)] if trained else []
    weights = outputs(reader, stage).get(WEIGHTS)
    rows += [("weights of the run, sha256", weights)] if weights else []
    tokens = reader.json("tokens/train/shards.json", dict) or {}
    rows += [("tokenizer of the run, sha256", tokens["tokenizer_sha256"])] if tokens.get("tokenizer_sha256") else []
    return [*rows, ("recipe with all its defaults, sha256", digest(reader.description.get("recipe")))]
