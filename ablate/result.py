"""The result of a comparison: what judged, the differences with their verdicts, all measurements, and the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.ablate import corpora
from corpusmill.ablate.cohesion import cohesion_difference
from corpusmill.ablate.config import BANDS, REPORT, AblateConfig, AblatePlan
from corpusmill.ablate.corpora import HELD_OUT, Variant
from corpusmill.ablate.page import page
from corpusmill.ablate.prepare import Prepared
from corpusmill.ablate.statistics import PairedDifference, Scores, difference
from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.storage import Storage


def judging(sets: Mapping[str, str]) -> list[int]:
    """Returns the numbers of the sets that decide: all but the held-out documents, which have the variants' own flaws; these alone where
    there are no others."""
    names = list(sets.values())
    return [number for number, name in enumerate(names) if name != HELD_OUT] or list(range(len(names)))


#: The judges: bits per byte of all that is measured of a document, of its bands, and the share of wrong choices (`config.CHOICES`).
BITS, *PARTS = ("bits", *(f"tokens {begin + 1} to {end:,}" for begin, end in BANDS))
LATE, CHOICE = PARTS[-1], "choice"
#: Judges of the variants' own documents (`cohesion`): by words, the share of windows that do not tell the next one from another document's,
#: or from one further away.
TOPIC, ORDER = "topic", "order"
#: The judges that speak against a verdict, and make none alone: whether a model uses the text before, and whether a text hangs together.
WITNESSES = (LATE, CHOICE, TOPIC, ORDER)
#: A variant's differences from the first one by judge.
Judged = dict[str, PairedDifference]


def bits_of(table: pa.Table, sets: Mapping[str, str], judge: str = BITS) -> tuple[Any, Any, Any]:
    """Returns bits, bytes and set numbers of a training's reference documents (REPORT): of whole ones, or of a band."""
    numbers = {path: number for number, path in enumerate(sets)}
    if judge != BITS:
        table = table.filter(pc.equal(table["band"], PARTS.index(judge)))
    of = table.group_by(["document", "source"], use_threads=False).aggregate([("nats", "sum"), ("utf8_bytes", "sum")])
    of = of.sort_by([("source", "ascending"), ("document", "ascending")])  # groups come in the order of their hashes
    set_of = np.array([numbers[source] for source in of["source"].to_pylist()], np.int64)
    return of["nats_sum"].to_numpy() / np.log(2), of["utf8_bytes_sum"].to_numpy().astype(np.float64), set_of


def choices_of(table: pa.Table, sets: Mapping[str, str]) -> tuple[Any, Any, Any]:
    """Returns whether each choice of a training (CHOICES) is wrong (1) or right (0), ones, and set numbers."""
    numbers = {path: number for number, path in enumerate(sets)}
    wrong = pc.less_equal(table["next"], pc.max_element_wise(table["later"], table["other"])).to_numpy().astype(np.float64)
    return wrong, np.ones(len(wrong)), np.array([numbers[source] for source in table["source"].to_pylist()], np.int64)


def mean_per_byte(table: pa.Table, sets: Mapping[str, str]) -> float:
    bits, sizes, set_of = bits_of(table, sets)
    return float(np.mean([bits[set_of == number].sum() / sizes[set_of == number].sum() for number in judging(sets)]))


def read_scores(storage: Storage, trained: Mapping[tuple[str, int], TaskRow], sets: Mapping[str, str]) -> dict[str, dict[str, Scores]]:
    """Reads what all proxies scored, by judge and variant. A judge for which no reference document is long enough is left out."""
    rows: dict[str, dict[str, list[Any]]] = {}
    for name, draw in trained:
        table, choices = (read_table(storage, f"trainings/{name}-{draw:02d}{end}.parquet") for end in ("", "-choices"))
        scores = {judge: bits_of(table, sets, judge) for judge in (BITS, *PARTS)} | {CHOICE: choices_of(choices, sets)}
        for judge, score in scores.items():
            rows.setdefault(judge, {}).setdefault(name, []).append(score)
    return {
        judge: {name: Scores(np.stack([values for values, *_ in each]), each[0][1], each[0][2]) for name, each in by_name.items()}
        for judge, by_name in rows.items()
        if set(judging(sets)) <= set(next(iter(by_name.values()))[0][2].tolist())
    }


def compare(scores: Mapping[str, Mapping[str, Scores]], name: str, first: str, sets: Sequence[int], error_rate: float) -> Judged:
    """Compares a variant with the first one by each judge of models, on as many draws as it has."""
    found = {}
    for judge, of in scores.items():
        base = Scores(of[first].values[: len(of[name].values)], of[first].sizes, of[first].set_of)
        found[judge] = difference(of[name], base, sets, error_rate)
    return found


def compare_texts(texts: pa.Table, name: str, first: str, error_rate: float) -> Judged:
    """Compares a variant's documents with those of the first one by TOPIC and ORDER, where both have enough. `texts`: COHESION."""
    found = {judge: cohesion_difference(texts, judge, name, first, error_rate) for judge in (TOPIC, ORDER)}
    return {judge: of for judge, of in found.items() if of is not None}


def _against(found: Judged) -> Judged:
    """Returns the judges that speak against the bits of whole documents. Broken text is no better, but whole text may be worse: `TOPIC` and
    `ORDER` speak against "better" alone."""
    sign = np.sign(found[BITS].mean)
    judges = WITNESSES if sign < 0 else (LATE, CHOICE)
    return {judge: found[judge] for judge in judges if judge in found and found[judge].decided and found[judge].mean * sign < 0}


def kind_of(found: Judged, moved: float) -> str:
    """Returns the verdict on a comparison. "better" or "worse", by the bits of whole documents; "mixed" where another judge speaks against
    it; "unclear" where a variant is better and more different documents may be why; "none" where these bits show no difference."""
    if not found[BITS].decided:
        return "none"
    if _against(found):
        return "mixed"
    return "worse" if found[BITS].mean > 0 else "unclear" if moved else "better"


def verdict(name: str, first: str, found: Judged, sets: int, moved: float = 0.0) -> str:
    """Returns one sentence about a comparison, which claims no more than the figures."""
    base, kind = found[BITS], kind_of(found, moved)
    over = f"{_size(BITS, base)} over {len(base.draws)} draws and {sets} reference set{'s' if sets > 1 else ''}"
    if kind == "none":
        shown = f"as many draws show {base.can_show:.4f} or more in 80% of cases, four times as many about {base.can_show / 2:.4f}"
        others = _listed({judge: found[judge] for judge in WITNESSES if judge in found and found[judge].decided})
        return f"No difference shown between {name} and {first}: {over}; {shown}.{f' Other judges show {others}.' if others else ''}"
    if kind == "mixed":
        side = "better" if base.mean < 0 else "worse"
        return f"Mixed: {name} makes a {side} model than {first}: {over}; but {_listed(_against(found))} speak against it."
    if kind == "unclear":
        return (
            f"Unclear: {name} scores better than {first}: {over}. But {moved:.0%} of its passages stand in other documents "
            f"of {first}, in other draws, so its draws may only hold more different text: quality and "
            "diversity can't be told apart here."
        )
    return f"{name} makes a {kind} model than {first}: {over}."


def _listed(found: Judged) -> str:
    return ", and ".join(_size(judge, of) for judge, of in found.items())


def _size(judge: str, of: PairedDifference) -> str:
    unit = {
        CHOICE: "wrong choices of the next paragraph",
        TOPIC: "windows not told from another document's by their words",
        ORDER: "windows not told from those further away by their words",
    }.get(judge, "bits per byte")
    where = f" of {judge}" if judge in PARTS else ""
    return f"{of.mean:+.4f} {unit}{where} ({of.low:+.4f} to {of.high:+.4f})"


def result(
    run: StageRun,
    config: AblateConfig,
    variants: Sequence[Variant],
    prepared: Prepared,
    plan: AblatePlan,
    trained: Mapping[tuple[str, int], TaskRow],
    found: Mapping[str, Judged],
    rates: tuple[float, float],
    search: Mapping[str, Any] | None,
) -> Output:
    """Returns the measurements, the result and the page."""
    storage, (first, *others) = run.storage, dict.fromkeys(name for name, _ in trained)
    known = {variant.name: variant for variant in variants}
    scores, names = read_scores(storage, trained, prepared.sets), list(prepared.sets.values())
    facts = {key: storage.read_json(f"trainings/{key[0]}-{key[1]:02d}.json") for key in trained}
    described = []
    for name in (first, *others):
        mine, variant = [facts[key] for key in facts if key[0] == name], known.get(name, variants[0])
        row = {
            "variant": name, "given": variant.run or variant.tokens, "run": variant.run, "tokens": int(prepared.parts[variant.name].sum()),
            "documents": prepared.kept[variant.name], "removed": prepared.removed[variant.name], "draws": len(mine),
            "epochs": max(fact["epochs"] for fact in mine), "stages": _funnel(variant), "curves": [fact["curve"] for fact in mine],
            "bits_per_byte": {set_: scores[BITS][name].of_set(number).tolist() for number, set_ in enumerate(names)},
            "right_choices": 1 - scores[CHOICE][name].values.mean() if CHOICE in scores else None,
            "read": {what: round(np.mean([fact[what] for fact in mine])) for what in ("documents", "hosts")},
            "copies": prepared.copies[variant.name],
        }  # fmt: skip
        if name != first:
            rate, moved = rates[len(mine) == config.draws], prepared.moved.get(name, 0.0)
            by_set = {set_: asdict(compare({BITS: scores[BITS]}, name, first, [n], rate)[BITS]) for n, set_ in enumerate(names)}
            row |= {
                "difference": asdict(found[name][BITS]), "by_judge": {judge: asdict(of) for judge, of in found[name].items()},
                "by_set": by_set, "error_rate": rate, "kind": kind_of(found[name], moved),
                "sentence": verdict(name, first, found[name], len(judging(prepared.sets)), moved),
                "only": {side: corpora.only_in(*(known.get(each) for each in pair))
                         for side, pair in ((first, (first, name)), (name, (name, first)))},
            }  # fmt: skip
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
        "witnesses": WITNESSES,
        "together": prepared.together,
        "confidence": config.confidence,
        "mixture": search,
    }
    files = {
        "measurements.parquet": _measurements(storage, trained, prepared.sets),
        "result.json": json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n",
    }
    return Output({**files, "page.html": page(content, run.run.root)}, rows_in=len(trained), kept=len(trained))


def _funnel(variant: Variant) -> dict[str, dict[str, int]]:
    """Returns what each data stage of a variant's run took in and kept."""
    if variant.run is None:
        return {}
    counts = {stage: Manifest(Storage(variant.run).child(stage), read_only=True).documents() for stage in DATA_STAGES}
    return {stage: {fate: int(count) for fate, count in of.items()} for stage, of in counts.items() if of}


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
