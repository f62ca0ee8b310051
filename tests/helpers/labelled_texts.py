"""Makes labelled texts: notes about a workshop or a kitchen, in several styles."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

KITCHEN = [
    "butter", "flour", "oven", "sugar", "knead", "dough", "simmer", "onion", "garlic", "pepper", "whisk", "saucepan", "bake",
    "roast", "yeast", "basil", "vanilla", "broth",
]  # fmt: skip
WORKSHOP = [
    "chisel", "hammer", "plank", "screw", "lathe", "drill", "varnish", "sawdust", "clamp", "plywood", "hinge", "rivet", "solder",
    "bolt", "wrench", "sandpaper", "dowel", "vice",
]  # fmt: skip
FILLERS = [
    "the", "of", "and", "to", "in", "that", "we", "then", "it", "was", "for", "on", "with", "as", "at", "by", "this", "had",
    "not", "are", "but", "from", "or", "have", "an", "they", "which", "one", "you", "were",
]  # fmt: skip


def notes(count: int, seed: int, manner: str = "", share: float = 0.5) -> list[tuple[str, int]]:
    """Returns `(text, 1 for a kitchen or 0 for a workshop)`; a number in each text makes it unique. `manner` is appended to all words of
    the source; `share` is the share of kitchen notes.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    found = []
    for number in range(count):
        yes = int(draw.random() < share)
        own, other = (KITCHEN, WORKSHOP) if yes else (WORKSHOP, KITCHEN)
        words = list(draw.choice(FILLERS, 8)) + list(draw.choice(own, 4)) + list(draw.choice(other, int(draw.integers(0, 3))))
        draw.shuffle(words)
        found.append((" ".join([f"note{seed}x{number}", *(word + manner for word in words)]), yes))
    return found


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_notes(path: Path, rows: Sequence[tuple[str, int]], column: str = "label") -> Path:
    return write_jsonl(path, [{"text": text, column: yes} for text, yes in rows])
