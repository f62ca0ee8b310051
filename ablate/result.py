"""The result of a comparison: what judged, the differences with their verdicts, all measurements, and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.ablate.config import REPORT, AblateConfig, AblatePlan
from corpusmill.ablate.corpora import HELD_OUT, Variant
from corpusmill.ablate.page import page
from corpusmill.ablate.prepare import Prepared
from corpusmill.ablate.statistics import Bits, PairedDifference, difference
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.metrics import documents_of


def judging(sets: Mapping[str, str]) -> list[int]:
    """Returns the numbers of the sets that decide: all but the held-out documents, which have the variants' own flaws; these alone where
    there are no others."""
    names = list(sets.values())
    return [number for number, name in enumerate(names) if name != HELD_OUT] or list(range(len(names)))


def bits_of(table: pa.Table, sets: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """Returns the bits, bytes and set numbers of a training's reference documents (REPORT), without those that have no bytes."""
    numbers = {path: number for number, path in enumerate(sets)}
    table = table.filter(pa.compute.greater(table["utf8_bytes"], 0))
    set_of = np.array([numbers[source] for source in table["source"].to_pylist()], np.int64)
    return table["nats"].to_numpy() / np.log(2), table["utf8_bytes"].to_numpy().astype(np.float64), set_of


def mean_per_byte(table: pa.Table, sets: Mapping[str, str]) -> float:
    bits, sizes, set_of = bits_of(table, sets)
    return float(np.mean([bits[set_of == number].sum() / sizes[set_of == number].sum() for number in judging(sets)]))


def read_bits(storage: Storage, trained: Mapping[tuple[str, int], TaskRow], sets: Mapping[str, str]) -> dict[str, Bits]:
    """Reads what all proxies needed for the reference documents, by variant."""
    found: dict[str, list[Any]] = {}
    for name, draw in trained:
        table = read_table(storage, f"trainings/{name}-{draw:02d}.parquet")
        found.setdefault(name, []).append(bits_of(table, sets))
    return {name: Bits(np.stack([bits for bits, *_ in rows]), rows[0][1], rows[0][2]) for name, rows in found.items()}


def compare(bits: Mapping[str, Bits], name: str, first: str, sets: Sequence[int], error_rate: float) -> PairedDifference:
    """Compares a variant with the first one, on as many draws as it has."""
    count = len(bits[name].bits)
    base = Bits(bits[first].bits[:count], bits[first].sizes, bits[first].set_of)
    return difference(bits[name], base, sets, error_rate)


def verdict(name: str, first: str, found: PairedDifference, sets: int) -> str:
    """Returns one sentence about a comparison, which claims no more than the figures."""
    judged = f"{sets} reference set{'s' if sets > 1 else ''}"
    size = f"{found.mean:+.4f} bits per byte ({found.low:+.4f} to {found.high:+.4f}) over {len(found.draws)} draws and {judged}"
    if not found.decided:
        shown = f"as many draws show {found.can_show:.4f} or more in 80% of cases, four times as many about {found.can_show / 2:.4f}"
        return f"No difference shown between {name} and {first}: {size}; {shown}."
    return f"{name} makes a {'better' if found.mean < 0 else 'worse'} model than {first}: {size}."


def result(
    run: StageRun,
    config: AblateConfig,
    variants: Sequence[Variant],
    prepared: Prepared,
    plan: AblatePlan,
    factor: float,
    trained: Mapping[tuple[str, int], TaskRow],
    found: Mapping[str, PairedDifference],
    rates: tuple[float, float],
    search: Mapping[str, Any] | None,
) -> Output:
    """Returns the measurements, the result and the page."""
    storage, (first, *others) = run.storage, dict.fromkeys(name for name, _ in trained)
    known = {variant.name: variant for variant in variants}
    bits, names = read_bits(storage, trained, prepared.sets), list(prepared.sets.values())
    facts = {key: json.loads(storage.read_bytes(f"trainings/{key[0]}-{key[1]:02d}.json")) for key in trained}
    described = []
    for name in (first, *others):
        mine, variant = [facts[key] for key in facts if key[0] == name], known.get(name, variants[0])
        row = {
            "variant": name, "given": variant.run or variant.tokens, "run": variant.run, "tokens": int(prepared.parts[variant.name].sum()),
            "documents": prepared.kept[variant.name], "removed": prepared.removed[variant.name], "draws": len(mine),
            "epochs": max(fact["epochs"] for fact in mine), "stages": _funnel(variant), "curves": [fact["curve"] for fact in mine],
            "bits_per_byte": {set_: bits[name].per_byte(number).tolist() for number, set_ in enumerate(names)},
        }  # fmt: skip
        if name != first:
            rate = rates[len(mine) == config.draws]
            by_set = {set_: asdict(compare(bits, name, first, [number], rate)) for number, set_ in enumerate(names)}
            sentence = verdict(name, first, found[name], len(judging(prepared.sets)))
            row |= {"difference": asdict(found[name]), "by_set": by_set, "error_rate": rate, "sentence": sentence}
        described.append(row)
    _, sizes, set_of = bits_of(read_table(storage, f"trainings/{first}-00.parquet"), prepared.sets)
    content = {
        "variants": described,
        "judging": [names[number] for number in judging(prepared.sets)],
        "sets": {
            name: {"documents": int((set_of == n).sum()), "utf8_bytes": int(sizes[set_of == n].sum())} for n, name in enumerate(names)
        },
        "plan": {"tokens": plan.tokens, "steps": plan.steps, "batch": config.batch},
        "model": {"preset": config.model.preset, "parameters": config.model.architecture(1).parameters()},
        "rates": {f"{other:g}": _rate_score(storage, other, prepared.sets) for other in config.rates if len(config.rates) > 1},
        "rate": factor,
        "rate_note": rate_note(factor, config.rates),
        "confidence": config.confidence,
        "mixture": search,
    }
    files = {
        "measurements.parquet": _measurements(storage, trained, prepared.sets),
        "result.json": json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n",
    }
    return Output({**files, "page.html": page(content, run.run.root)}, rows_in=len(trained), kept=len(trained))


def rate_note(factor: float, tried: Sequence[float]) -> str | None:
    """Returns a sentence where the best learning rate is the last of those that were tried, so the one beyond it may be better."""
    if len(tried) < 2 or factor not in (min(tried), max(tried)):
        return None
    kind, more = ("largest", 2 * factor) if factor == max(tried) else ("smallest", factor / 2)
    return f"The {kind} learning rate that was tried, {factor:g} times the usual, was the best; try ablate.rates with {more:g}, too."


def _funnel(variant: Variant) -> dict[str, dict[str, int]]:
    """Returns what each data stage of a variant's run took in and kept."""
    if variant.run is None:
        return {}
    counts = {stage: documents_of(Manifest(Storage(variant.run).child(stage), read_only=True)) for stage in DATA_STAGES}
    return {stage: {fate: int(count) for fate, count in of.items()} for stage, of in counts.items() if of}


def _rate_score(storage: Storage, factor: float, sets: Mapping[str, str]) -> float:
    return mean_per_byte(read_table(storage, f"trainings/rate-{factor:g}.parquet"), sets)


def _measurements(storage: Storage, trained: Mapping[tuple[str, int], TaskRow], sets: Mapping[str, str]) -> pa.Table:
    """Returns all measurements: a row a variant, draw and reference document."""
    parts = []
    for name, draw in sorted(trained):
        table = read_table(storage, f"trainings/{name}-{draw:02d}.parquet")
        named = pa.array([sets[source] for source in table["source"].to_pylist()], pa.string())
        who = [pa.array([name] * len(table), pa.string()), pa.array(np.full(len(table), draw, np.int32)), named]
        parts.append(
            pa.table([*who, *table.drop(["source"]).columns], names=["variant", "draw", "set", *REPORT.names[:1], *REPORT.names[2:]])
        )
    return pa.concat_tables(parts)
