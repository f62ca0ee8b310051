"""Measures what `corpusmill ablate` sees where the truth is known.

    python benchmarks/ablate.py halves RUN [--numbers 0-39]        # two random halves of one corpus: no difference is true
    python benchmarks/ablate.py damage RUN --foreign GERMAN.txt    # planted damage: a difference is true, and grows with its share
    python benchmarks/ablate.py mixture RUN                        # one of four sources is the reference's own kind
    python benchmarks/ablate.py real FILE [FILE ...]               # recipes on one crawl: nobody knows what is true
    common options: [--folder DIR] [--set KEY=VALUE ...] [--engine auto] [--workers 0]

RUN is a run with documents, for example one of the recipe `fineweb` on a crawl. Each comparison is one command `ablate`; with one that is
finished nothing is trained again, so a benchmark that was killed goes on.

`halves`: of 40 comparisons, at most 4 may be called different. `damage`: in documents that hold 10, 30 and 60% of all characters, words are
shuffled within sentences; or German sentences stand in their place; or each is there eight times, with another word changed; or lines of
menus stand between theirs. Each is compared with the whole corpus. Prints whether the differences are ranked by share, and the smallest
share that is found in 80% of cases. `mixture`: half of Brown's texts are planted beside the run, the run with its words shuffled, and the
run between lines of menus; the other half judges. `real`: FILE are WARC files; each recipe of REAL makes a variant.
"""

import argparse
import json
import platform
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.ablate.corpora import read_variant, reference_texts, texts_of
from corpusmill.filters.presets import PRESETS
from corpusmill.pipeline.recipe import Recipe

Rows = list[dict[str, str]]
MENU = [
    "Home | About | Contact",
    "Click here to subscribe to our newsletter",
    "Share this page",
    "All rights reserved. Terms of use. Privacy",
]
SHARES = (0.1, 0.3, 0.6)
STEPS = PRESETS["fineweb"]["steps"]
#: Recipes after ingest. All but `raw` and `no-dedup` have the same deduplication, so the rules are compared and nothing else.
REAL: dict[str, dict[str, Any]] = {
    "fineweb": {"filter": {"preset": "fineweb"}, "dedup": {"preset": "fineweb"}},
    "raw": {"filter": {"steps": STEPS[:1]}},  # what is English
    "no-dedup": {"filter": {"preset": "fineweb"}},
    "dclm": {"filter": {"preset": "dclm"}, "dedup": {"preset": "fineweb"}},
    "best-half": {"filter": {"word_rule": "spacy", "steps": [*STEPS, {"quality": {"keep": 0.5}}]}, "dedup": {"preset": "fineweb"}},
}


def documents_of(run: str) -> Rows:
    """Returns the documents of a run: their texts, and a URL by which a document is the same one in every variant."""
    variant = read_variant("documents", run, lambda name, path: path)
    return [{"text": text, "url": f"http://ablate.test/{number}"} for number, text in enumerate(texts_of(variant)) if len(text) > 400]


def shuffled(text: str, generator: random.Random, _: list[str]) -> list[str]:
    found = []
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = sentence.split()
        generator.shuffle(words)
        found.append(" ".join(words))
    return [" ".join(found)]


def copies(text: str, generator: random.Random, _: list[str]) -> list[str]:
    words = text.split()
    found = []
    for _number in range(8):
        changed = list(words)
        changed[generator.randrange(len(words))] = "word"
        found.append(" ".join(changed))
    return found


def boilerplate(text: str, generator: random.Random, _: list[str]) -> list[str]:
    lines = []
    for line in text.splitlines():
        lines += [line, generator.choice(MENU)]
    return ["\n".join(lines)]


def german(text: str, generator: random.Random, foreign: list[str]) -> list[str]:
    found = ""
    while len(found) < len(text):
        found += generator.choice(foreign) + " "
    return [found[: len(text)]]


def reversed_sentences(text: str, generator: random.Random, _: list[str]) -> list[str]:
    return [" ".join(re.split(r"(?<=[.!?])\s+", text)[::-1])]


def truncated(text: str, generator: random.Random, _: list[str]) -> list[str]:
    return [text[: max(200, len(text) // 5)]]


def sorted_lines(text: str, generator: random.Random, _: list[str]) -> list[str]:
    return ["\n".join(sorted(re.split(r"(?<=[.!?])\s+|\n", text)))]


def mingled(parts: list[list[str]], by: str, generator: random.Random) -> list[str]:
    """Deals the parts of all documents out again: each document gets as many as it had, of whatever documents."""
    every = [part for each in parts for part in each]
    generator.shuffle(every)
    return [by.join(every.pop() for _ in each) for each in parts]


#: Damage to several documents together: their texts are cut, and the parts dealt out.
MINGLED: dict[str, tuple[Callable[[str], list[str]], str]] = {
    "joined": (lambda text: [text[begin : begin + 200] for begin in range(0, len(text), 200)], ""),
    "mixed": (lambda text: re.split(r"\n\n?", text), "\n\n"),
}
DAMAGE: dict[str, Callable[[str, random.Random, list[str]], list[str]]] = {
    "shuffled": shuffled, "german": german, "copies": copies, "boilerplate": boilerplate,
    "reversed": reversed_sentences, "truncated": truncated, "sorted": sorted_lines,
}  # fmt: skip


def damaged(rows: Rows, kind: str, share: float, foreign: list[str]) -> Rows:
    """Returns the documents, of which those with a share of the characters afterwards are damaged. Shares are nested: .3 has the damage of
    .1, and more."""
    if kind == "copies":
        share = share / (8 - 7 * share)  # eight copies of these are the share that was asked for
    order = list(range(len(rows)))
    random.Random(f"order {kind}").shuffle(order)
    left, found = share * sum(len(row["text"]) for row in rows), {}
    for number in order:
        if left > 0:
            row = rows[number]
            left -= len(row["text"])
            if kind in MINGLED:
                found[number] = []
                continue
            texts = DAMAGE[kind](row["text"], random.Random(f"{kind} {number}"), foreign)
            found[number] = [{"text": text, "url": row["url"] + (f"?{copy}" if copy else "")} for copy, text in enumerate(texts)]
    if kind in MINGLED:
        cut, by = MINGLED[kind]
        texts = mingled([cut(rows[number]["text"]) for number in found], by, random.Random(f"{kind} {share}"))
        found = {number: [rows[number] | {"text": text}] for number, text in zip(found, texts, strict=True)}
    return [row for number, before in enumerate(rows) for row in found.get(number, [before])]


class Benchmark:
    """Makes variants and compares them, in one folder."""

    def __init__(self, given: argparse.Namespace):
        self.folder, self.engine, self.workers = Path(given.folder), given.engine, given.workers
        self.changes = {key: json.loads(value) for key, _, value in (each.partition("=") for each in given.set)}
        self.folder.mkdir(parents=True, exist_ok=True)

    def variant(self, name: str, rows: Rows) -> str:
        """Writes documents as a run, unless it is there. Returns its folder."""
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        corpusmill.run({"ingest": {}}, path, self.folder / name, engine="inline")
        return str(self.folder / name)

    def compared(self, name: str, variants: dict[str, str], changes: dict[str, Any]) -> dict[str, Any]:
        """Compares variants, and prints a row each. Returns what `result.json` has."""
        started = time.monotonic()
        recipe = Recipe({"ablate": {"variants": variants}}).with_({**changes, **self.changes})
        corpusmill.run(recipe, [], self.folder / name, engine=self.engine, workers=self.workers)
        found: dict[str, Any] = json.loads((self.folder / name / "ablate/result.json").read_text())
        for row in found["variants"][1:]:
            of, seconds = row["difference"], time.monotonic() - started
            print(f"| {name} | {row['variant']} | {of['mean']:+.4f} | {of['low']:+.4f} to {of['high']:+.4f} | {of['can_show']:.4f} | "
                  f"{len(of['draws'])} | {called(row)} | {seconds:,.0f} |", flush=True)  # fmt: skip
        return found


def called(row: dict[str, Any]) -> str:
    return "no difference shown" if row["kind"] == "none" else row["kind"]


def halves(benchmark: Benchmark, rows: Rows, numbers: range) -> None:
    different = 0
    for number in numbers:
        mixed = list(rows)
        random.Random(f"halves {number}").shuffle(mixed)
        parts = {"a": mixed[: len(mixed) // 2], "b": mixed[len(mixed) // 2 :]}
        variants = {name: benchmark.variant(f"half-{number}-{name}", half) for name, half in parts.items()}
        found = benchmark.compared(f"halves-{number}", variants, {"ablate.held_out": 0})
        different += called(found["variants"][1]) != "no difference shown"
    print(f"called different: {different} of {len(numbers)} comparisons of halves")


def damage(benchmark: Benchmark, rows: Rows, kinds: list[str], foreign: list[str]) -> None:
    whole = benchmark.variant("whole", rows)
    for kind in kinds:
        named = {f"{kind}-{100 * share:.0f}": damaged(rows, kind, share, foreign) for share in SHARES}
        variants = {"whole": whole} | {name: benchmark.variant(name, changed) for name, changed in named.items()}
        rows_of = benchmark.compared(f"damage-{kind}", variants, {})["variants"][1:]
        for judge in rows_of[0]["by_judge"]:
            print(f"  {judge}: " + "; ".join("{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**row["by_judge"][judge]) for row in rows_of))
        found = [row["difference"] for row in rows_of]
        means = [of["mean"] for of in found]
        print(f"{kind}: {'ranked by share' if 0 < means[1] < means[2] and means[0] < means[1] else 'NOT ranked by share'}; {power(found)}")


def power(found: list[dict[str, Any]]) -> str:
    """Returns the smallest share that is found in 80% of cases, by interpolation between the shares that were measured."""
    last, before = 0.0, 0.0
    for share, of in zip(SHARES, found, strict=True):
        ratio = of["mean"] / of["can_show"]
        if ratio >= 1:
            return f"{last + (share - last) * (1 - before) / (ratio - before):.0%} is found in 80% of cases"
        last, before = share, ratio
    return "60% is not found in 80% of cases"


def mixture(benchmark: Benchmark, rows: Rows) -> None:
    brown = [text for text, _ in reference_texts("brown")]
    judges = benchmark.folder / "judges.jsonl"
    judges.write_text("".join(json.dumps({"text": text}) + "\n" for text in brown[::2]))
    sources = {"brown": brown[1::2], "crawl": [row["text"] for row in rows]}
    for kind in ("shuffled", "boilerplate"):
        sources[kind] = [DAMAGE[kind](row["text"], random.Random(f"{kind} {number}"), [])[0] for number, row in enumerate(rows)]
    path = benchmark.folder / "sources.jsonl"
    path.write_text("".join(json.dumps({"text": text, "kind": name}) + "\n" for name, texts in sources.items() for text in texts))
    corpusmill.run({"ingest": {}}, path, benchmark.folder / "sources", engine="inline")
    changes = {"ablate.references": [str(judges)], "ablate.held_out": 0, "ablate.mixtures": {"by": "kind", "proxies": 64}}
    found = benchmark.compared("mixture", {"sources": str(benchmark.folder / "sources")}, changes)["mixture"]
    for row in found["components"]:
        print(f"  {row['component']}: natural {row['natural']:.1%}, proposed {row['proposed']:.1%}")


def real(benchmark: Benchmark, files: list[str]) -> None:
    variants = {name: str(benchmark.folder / name) for name in REAL}
    for name, sections in REAL.items():
        # a crawl of few sites, or of one site in two copies, has more duplicates than a slip would explain
        recipe = Recipe({"ingest": {"url_filter": {"preset": "datatrove"}}, **sections}).with_(
            {"dedup.alarm": "warn"} if "dedup" in sections else {}
        )
        corpusmill.run(recipe, files, variants[name], engine=benchmark.engine, workers=benchmark.workers)
    for row in benchmark.compared("real", variants, {})["variants"]:
        print(f"  {row['variant']}: {row['documents']:,} documents, {row['tokens']:,} tokens, each read {row['epochs']:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("halves", "damage", "mixture", "real"))
    parser.add_argument("runs", nargs="+", metavar="run", help="a run; for `real`, the files of a crawl")
    parser.add_argument("--folder", default="runs/ablate-benchmark")
    parser.add_argument("--numbers", default="0-39", help="of the halves that are compared")
    parser.add_argument("--kinds", default=",".join([*DAMAGE, *MINGLED]))
    parser.add_argument("--foreign", help="a text file of sentences, for `german`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    benchmark, rows = Benchmark(given), [] if given.what == "real" else documents_of(given.runs[0])
    print(f"{platform.processor() or platform.machine()}; {len(rows):,} documents, {sum(len(row['text']) for row in rows):,} characters")
    print("| comparison | variant | difference | interval | can show | draws | verdict | seconds |\n|---|---|---|---|---|---|---|---|")
    if given.what == "halves":
        first, _, last = given.numbers.partition("-")
        halves(benchmark, rows, range(int(first), int(last or first) + 1))
    elif given.what == "damage":
        if not given.foreign and "german" in given.kinds:
            parser.error("damage: give German sentences in --foreign, or leave `german` out of --kinds")
        foreign = [line for line in Path(given.foreign).read_text().splitlines() if line.strip()] if given.foreign else []
        damage(benchmark, rows, given.kinds.split(","), foreign)
    elif given.what == "mixture":
        mixture(benchmark, rows)
    else:
        real(benchmark, given.runs)


if __name__ == "__main__":
    main()
