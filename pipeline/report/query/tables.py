"""Which tables a run has, and from which files.

A table's name is the stage and the folder of its shards (`filter_report`, `dedup_clusters`), `documents` in place of `data`; a file
with a name of its own is a table of its own (`dedup_clusters_sources`), and numbered files of such a name are
its parts (`tokenizer_judged_judge_parts`).
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.pipeline.report.read import RunReader

#: Shards of one table, by the name before their number; `part` and `tokens` say nothing that the folder does not say.
_NUMBERED = re.compile(r"(\w+)-\d+.*")
_PLAIN = ("part", "tokens")


@dataclass(frozen=True)
class Table:
    """`files` are paths relative to the run, in the order of the stage's plan."""

    name: str
    stage: str
    files: tuple[str, ...]


def find_tables(reader: RunReader) -> dict[str, Table]:
    """All Parquet tables that the run's manifests name, by name, in the order of the stages."""
    files: dict[str, list[str]] = {}
    stages: dict[str, str] = {}
    for stage in reader.stages.values():
        for output in stage.outputs(""):
            path = output.removeprefix(TRIAL)
            if path.endswith(".parquet"):
                name = _name(stage.name, PurePosixPath(path))
                files.setdefault(name, []).append(f"{stage.name}/{output}")
                stages[name] = stage.name
    return {name: Table(name, stages[name], tuple(paths)) for name, paths in files.items()}


def _name(stage: str, path: PurePosixPath) -> str:
    folders = ["documents" if part == "data" else part for part in path.parts[:-1]]
    shard = _NUMBERED.fullmatch(path.stem)
    own = [path.stem] if shard is None else [] if shard[1] in _PLAIN else [shard[1], "parts"]
    return re.sub(r"\W", "_", "_".join([stage, *folders, *own]))
