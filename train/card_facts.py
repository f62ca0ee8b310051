"""What a model card says of a run's data and trainings, as rows of its tables; every figure is one of the run's report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from corpusmill.pipeline.report.decisions import Decisions
from corpusmill.pipeline.report.histogram import number
from corpusmill.pipeline.report.read import RunReader
from corpusmill.pipeline.report.summary import Summary
from corpusmill.pipeline.report.training import as_number
from corpusmill.train.architecture import Architecture

TRAINED = ("pretrain", "sft", "align")

Row = tuple[str, str]


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


@dataclass(frozen=True)
class RuleRow:
    """A rule: what it drops (empty where its stage wrote no threshold), the documents it fired on, and those that it alone dropped."""

    name: str
    condition: str
    fired: int
    alone: int


def rule_rows(decisions: Decisions) -> list[RuleRow]:
    """A stage's rules, those that fired most first."""
    conditions = {r.rule: f"{r.column} {r.comparison} {number(r.threshold)}" for r in decisions.thresholds}
    rules = sorted(decisions.rules.values(), key=lambda rule: -rule.fired)
    return [RuleRow(rule.name, conditions.get(rule.name, ""), rule.fired, rule.alone) for rule in rules]


def dedup_rows(summary: Summary) -> list[Row]:
    """How many copies of each kind were removed, what counts as one, and what else was taken away."""
    found, decisions, settings = summary.duplicates, summary.decisions.get("dedup"), summary.reader.settings("dedup")
    if found is None:
        return []
    clusters, total = found.clusters, decisions.rows if decisions else 0
    removed = {"exact": clusters.exact, "near": clusters.near, "by URL": clusters.url}
    of = f" ({{:.1%}} of {number(total)})" if total else ""
    rows = [(f"copies removed, {kind}", number(count) + of.format(count / (total or 1))) for kind, count in removed.items() if count]
    rows += [("groups of copies", number(clusters.sizes.total())), ("kept of a group", found.policy)]
    near: dict[str, Any] = settings.get("minhash") or {}
    if near.get("enabled"):
        what = f"{settings.get('similarity')} similarity of {number(found.threshold)} or more"
        rows.append(("near means", f"{what} on shingles of {near.get('ngram')} {near.get('unit')}"))
        rows.append(("candidates by", f"MinHash, {near.get('bands')} bands of {near.get('rows')} rows"))
    rows += [(f"repeated {cuts.kind} cut from documents that stay", f"{number(cuts.characters)} characters") for cuts in summary.dedup.cuts]
    if contamination := summary.dedup.contamination:
        rows.append(("documents with items of evaluation sets", f"{number(contamination.documents)} of {number(contamination.seen)}"))
    return rows


def tokenizer_rows(summary: Summary) -> list[Row]:
    settings, judged = summary.reader.settings("tokenizer"), summary.tokenizer
    rows = [("kind", f"{settings.get('kind', 'bpe')}, cut by the expression of {settings.get('pattern')}")] if settings else []
    sizes = [t.get("vocabulary_size") for t in summary.tokens.values()]
    rows += [("vocabulary", number(size)) for size in sizes[:1]]
    if judged:
        own = judged.tokenizers[0].all
        rows.append(("bytes a token", f"{number(own.bytes_per_token)} on {number(own.documents)} documents of the run"))
    return rows


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
