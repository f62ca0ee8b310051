"""Makes the folder of a small classifier with two labels, trained by fastText itself on made-up posts, and more posts for tests."""

import hashlib
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fasttext import load_model, train_supervised

from corpusmill.filters.classifier.calibrate import fit_calibration
from corpusmill.filters.classifier.card import NO, YES, ClassifierDescription, ClassifierHead
from corpusmill.filters.classifier.forms import write_form
from corpusmill.filters.classifier.score import TRAINING_HASHES, hash_lines, hashes_file

COMMON = re.findall(r"\w+", "the a of to and in it you we was this that for on with day time house work city")
RUDE = ["darn", "drat", "dumb", "fool", "heck", "idiot", "jerk", "nitwit"]
SPAM = ["buy", "cheap", "click", "deal", "free", "offer", "pills", "winner"]


def make_posts(seed: int, count: int) -> list[dict[str, Any]]:
    """Makes posts of 5 to 60 words: `rude` and `spam` are 1 or 0; some rude or spammy words occur in other posts, too."""
    chance = random.Random(seed)
    posts = []
    for number in range(count):
        rude, spam = int(chance.random() < 0.4), int(chance.random() < 0.3)
        words = [chance.choice(COMMON) for _ in range(chance.choice([5, 8, 20, 60]))]
        for answer, kind in ((rude, RUDE), (spam, SPAM)):
            for _ in range(max(1, len(words) // 8) if answer else int(chance.random() < 0.15)):
                words[chance.randrange(len(words))] = chance.choice(kind)
        posts.append({"id": f"post-{seed}-{number}", "text": " ".join(words).capitalize() + ".", "rude": rude, "spam": spam})
    return posts


def write_classifier(folder: Path, posts: list[dict[str, Any]], card: dict[str, Any] | None = None, hashes: bool = True) -> Path:
    """Trains a head for each label on the first three quarters of `posts` and calibrates it on the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = write_form("words", pa.array([post["text"] for post in posts], pa.large_string()))
    cut, heads = 3 * len(posts) // 4, []
    for label in ("rude", "spam"):
        answers = np.array([post[label] for post in posts])
        train, path = folder / "train.txt", folder / f"{label}.bin"
        names = [YES if answer else NO for answer in answers]
        train.write_text("".join(f"{name} {line}\n" for name, line in zip(names[:cut], lines.to_pylist())), newline="\n")
        train_supervised(str(train), dim=8, epoch=10, lr=0.3, minCount=1, bucket=1000, thread=1, seed=1, verbose=0).save_model(str(path))
        train.unlink()
        model = load_model(str(path))
        found = [dict(zip(*model.predict(line, k=-1))).get(YES, 0.0) for line in lines.to_pylist()[cut:]]
        calibration = fit_calibration(np.clip(found, 0, 1), answers[cut:])
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        heads.append(ClassifierHead(label=label, file=path.name, sha256=sha256, calibration=calibration, threshold=0.4))
    (folder / "classifier.json").write_text(ClassifierDescription(name="posts", heads=tuple(heads), card=card or {}).model_dump_json())
    if hashes:
        (folder / TRAINING_HASHES).write_bytes(hashes_file(hash_lines(lines)))
    return folder
