"""Measures what `corpusmill ablate` sees: halves of one corpus (no difference is true), and planted damage (a difference is true).

    python benchmarks/ablate.py RUN [--folder DIR] [--halves 4] [--damage shuffled,german,copies,boilerplate] [--shares 0.1,0.3,0.6]
                                [--set ablate.tokens=300000 ...] [--minutes 30]

RUN is a run with documents, for example an `ingest` of a crawl. `--halves N`: N comparisons of two random halves of its documents; at most
one in ten may be called different. `--damage`: kinds of damage, each done to these shares of the documents of one half, which are compared
with the whole half: their words shuffled; German sentences in their place; each eight times with another word changed; boilerplate lines
between their own. Prints each comparison's difference, interval, verdict and seconds. A comparison that is finished is not trained again.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import corpusmill
from corpusmill.ablate.corpora import read_variant, texts_of
from corpusmill.pipeline.recipe import Recipe

Rows = list[dict[str, str]]
MENU = [
    "Home | About | Contact",
    "Click here to subscribe to our newsletter",
    "Share this page",
    "All rights reserved. Terms of use. Privacy",
]


def documents_of(run: str) -> Rows:
    """Returns the documents of a run: their texts, and a URL by which a document is the same one in every variant."""
    variant = read_variant("documents", run, lambda name, path: path)
    return [{"text": text, "url": f"http://ablate.test/{number}"} for number, text in enumerate(texts_of(variant)) if len(text) > 400]


def shuffled(text: str, generator: random.Random, _: Rows) -> list[str]:
    words = text.split()
    generator.shuffle(words)
    return [" ".join(words)]


def copies(text: str, generator: random.Random, _: Rows) -> list[str]:
    words = text.split()
    found = []
    for _number in range(8):
        changed = list(words)
        changed[generator.randrange(len(words))] = "word"
        found.append(" ".join(changed))
    return found


def boilerplate(text: str, generator: random.Random, _: Rows) -> list[str]:
    lines = []
    for line in text.splitlines():
        lines += [line, generator.choice(MENU)]
    return ["\n".join(lines)]


def german(text: str, generator: random.Random, foreign: Rows) -> list[str]:
    found = ""
    while len(found) < len(text):
        found += generator.choice(foreign)["text"] + "\n"
    return [found[: len(text)]]


DAMAGE: dict[str, Callable[[str, random.Random, Rows], list[str]]] = {
    "shuffled": shuffled, "german": german, "copies": copies, "boilerplate": boilerplate,
}  # fmt: skip


def damaged(rows: Rows, kind: str, share: float, foreign: Rows) -> Rows:
    """Returns the documents with a share of them damaged; the shares are nested, so .3 has the damage of .1 and more."""
    order = list(range(len(rows)))
    random.Random(f"order {kind}").shuffle(order)
    chosen, found = set(order[: round(share * len(rows))]), []
    for number, row in enumerate(rows):
        if number not in chosen:
            found.append(row)
            continue
        texts = DAMAGE[kind](row["text"], random.Random(f"{kind} {number}"), foreign)
        found += [{"text": text, "url": row["url"] + (f"?{copy}" if copy else "")} for copy, text in enumerate(texts)]
    return found


def variant(folder: Path, name: str, rows: Rows) -> str:
    """Writes documents as a run, unless it is there. Returns its folder."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpusmill.run({"ingest": {}}, path, folder / name)
    return str(folder / name)


def compared(folder: Path, name: str, variants: dict[str, str], changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Compares variants. Returns the rows of `result.json` but the first."""
    started = time.monotonic()
    recipe = Recipe({"ablate": {"variants": variants}}).with_(changes)
    corpusmill.run(recipe, [], folder / name)
    found: dict[str, Any] = json.loads((folder / name / "ablate/result.json").read_text())
    for row in found["variants"][1:]:
        of = row["difference"]
        verdict = "no difference shown" if of["low"] <= 0 <= of["high"] else "better" if of["mean"] < 0 else "worse"
        print(f"| {name} | {row['variant']} | {of['mean']:+.4f} | {of['low']:+.4f} to {of['high']:+.4f} | {of['can_show']:.4f} | "
              f"{len(of['draws'])} | {verdict} |", flush=True)  # fmt: skip
    print(f"  {name}: {time.monotonic() - started:,.0f} s", flush=True)
    return found["variants"][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--folder", default="runs/ablate-benchmark")
    parser.add_argument("--halves", type=int, default=4)
    parser.add_argument("--damage", default=",".join(DAMAGE))
    parser.add_argument("--shares", default="0.1,0.3,0.6")
    parser.add_argument("--foreign", help="a Parquet or JSONL file with a column text, for `german`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=30, help="the budget of a comparison")
    given = parser.parse_args()
    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    changes = {"ablate.budget": f"{given.minutes:g}m"} | {
        key: json.loads(value) for key, _, value in (each.partition("=") for each in given.set)
    }
    rows = documents_of(given.run)
    print(f"{len(rows):,} documents, {sum(len(row['text']) for row in rows):,} characters")
    print("| comparison | variant | difference, bits per byte | interval | can show | draws | verdict |\n|---|---|---|---|---|---|---|")
    called = 0
    for number in range(given.halves):
        mixed = list(rows)
        random.Random(f"halves {number}").shuffle(mixed)
        halves = {"a": mixed[: len(mixed) // 2], "b": mixed[len(mixed) // 2 :]}
        variants = {name: variant(folder, f"half-{number}-{name}", half) for name, half in halves.items()}
        found = compared(folder, f"halves-{number}", variants, {**changes, "ablate.held_out": 0})
        called += sum(not row["difference"]["low"] <= 0 <= row["difference"]["high"] for row in found)
    if given.halves:
        print(f"called different: {called} of {given.halves} comparisons of halves")
    foreign = pq.read_table(given.foreign, columns=["text"]).to_pylist() if given.foreign else []
    whole = variant(folder, "whole", rows)
    for kind in filter(None, given.damage.split(",")):
        if kind == "german" and not foreign:
            print("german: left out; give texts in --foreign")
            continue
        shares = [float(share) for share in given.shares.split(",")]
        variants = {"whole": whole} | {
            f"{kind}-{share:.0%}".rstrip("%"): variant(folder, f"{kind}-{share:g}", damaged(rows, kind, share, foreign)) for share in shares
        }
        found = compared(folder, f"damage-{kind}", variants, changes)
        means = [row["difference"]["mean"] for row in found]
        print(f"{kind}: {'ranked by share' if means == sorted(means) else 'NOT ranked by share'}")


if __name__ == "__main__":
    main()
