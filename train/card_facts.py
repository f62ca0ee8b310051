"""What a model card says of a run's data and trainings, as rows of its tables; every figure is one of the run's report."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from corpusmill.report.card.facts import Row
from corpusmill.report.queries.training import as_number
from corpusmill.report.read import RunReader
from corpusmill.report.tables import number
from corpusmill.train.architecture import Architecture

TRAINED = ("pretrain", "sft", "align")


def chain(reader: RunReader, stage: str) -> list[str]:
    """The trainings that made the model of `stage`, the first one first; what was before a model that a stage was given is not known."""
    trained = reader.present(TRAINED[: TRAINED.index(stage) + 1])
    begins = max((place for place, tuned in enumerate(trained) if base_model(reader, tuned)), default=0)
    return trained[begins:]


def base_model(reader: RunReader, stage: str) -> str | None:
    """The name of the model that a stage was given to tune (not where it lay); None where it went on from the run's own."""
    given = reader.settings(stage).get("model") if stage != "pretrain" else None
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
    """What was trained on, how, and what came of it; the steps taken and the losses are those of the stage's `metrics.json`."""
    metrics, settings = reader.json(f"{stage}/metrics.json", dict) or {}, reader.settings(stage)
    rows = _known(("tuned from", base_model(reader, stage)))
    rows += {"pretrain": _pretrain, "sft": _sft, "align": _align}[stage](metrics, settings)
    rows += _loop(settings.get("loop") or {}, settings.get("lora") or {})
    rows += _known(("seed", settings.get("seed")), ("steps skipped by guards", metrics.get("skipped", metrics.get("skipped_steps"))))
    return rows + _outcome(stage, metrics)


def _known(*rows: tuple[str, Any]) -> list[Row]:
    """Those that have a value."""
    return [(label, number(value)) for label, value in rows if value is not None]


def _pretrain(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    return _known(
        ("optimiser steps", metrics.get("steps")),
        ("tokens seen", metrics.get("tokens")),
        ("passes over the training tokens", metrics.get("epochs")),
        ("rows in a step", settings.get("batch")),
        ("rows are", {"stream": "windows of the token stream", "documents": "whole documents, packed"}.get(str(settings.get("packing")))),
        ("attention across documents", None if "document_mask" not in settings else not settings["document_mask"]),
    )


def _sft(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    return _known(
        ("examples", metrics.get("examples")),
        ("made from", _source(settings, "tasks built from the run's own documents (title, continuation, question)")),
        ("held out", metrics.get("held_out_examples")),
        ("chat template", settings.get("template")),
        ("optimiser steps", metrics.get("steps")),
        ("targets learned", metrics.get("target_tokens")),
        ("rows of packed examples in a step", settings.get("batch")),
    )


def _align(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
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
    "orpo": "ORPO", "simpo": "SimPO", "kto": "KTO",
}  # fmt: skip


def _source(settings: Mapping[str, Any], otherwise: str) -> str:
    files: Iterable[str] = settings.get("files") or []
    return ", ".join(map(str, files)) or otherwise


def _loop(loop: Mapping[str, Any], lora: Mapping[str, Any]) -> list[Row]:
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
