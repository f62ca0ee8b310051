"""The files of the evaluation sets that a recipe names, and what reports call them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from corpusmill.dedup.contamination.config import SetConfig
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.formats.evaluation_sets import COMPRESSIONS, ENDINGS, has_data
from corpusmill.pipeline.manifest import FileRef

SPLITS = frozenset(["test", "train", "validation", "valid", "val", "dev", "data", "eval", "none", "default", "main", "plain_text"])
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class SetFile:
    """One file of a set. `name` is what reports call it."""

    ref: FileRef
    name: str
    config: SetConfig


def set_files(configs: Sequence[SetConfig]) -> list[SetFile]:
    """The files that the paths of the sets name, each once. Files of a folder that hold no data are left out."""
    found: dict[str, SetConfig] = {}
    for config in configs:
        paths = expand(config.path)
        chosen = [path for path in paths if path == config.path or has_data(path)]
        if not chosen:
            raise InputError(f"{config.path}: no JSONL, JSON, Parquet, Arrow or zip file in it for dedup.contamination.sets.")
        for path in chosen:
            found.setdefault(path, config)
    names = _names(list(found))
    return [SetFile(file_ref(path), config.name or names[path], config) for path, config in found.items()]


def _parts(path: str) -> tuple[str, ...]:
    """Folders and name of a file without endings and numbers of shards; the last is not `data`, which says nothing."""
    name = PurePosixPath(path).name
    for ending in (*COMPRESSIONS, *ENDINGS):
        name = name.removesuffix(ending)
    folders, name = PurePosixPath(path).parts[:-1], SHARD.sub("", name)
    return folders if name == "data" and folders else (*folders, name)


def _names(paths: list[str]) -> dict[str, str]:
    """As many of the last parts of each path as tell it from the others and are not all names of splits: `ARC-Easy/test`."""
    parts = {path: _parts(path) for path in paths}
    count = dict.fromkeys(parts.values(), 1)
    while True:
        names = {whole: "/".join(whole[-number:]) for whole, number in count.items()}
        same = Counter(names.values())
        longer = [w for w in count if count[w] < len(w) and (same[names[w]] > 1 or SPLITS.issuperset(names[w].lower().split("/")))]
        if not longer:
            return {path: names[whole] for path, whole in parts.items()}
        for whole in longer:
            count[whole] += 1
