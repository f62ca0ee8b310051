"""Which tables a run has, and from which files.

A table's name is the stage and the folder of its shards (`filter_report`, `dedup_clusters`), `documents` in place of `data`; a file
with a name of its own is a table of its own (`dedup_clusters_sources`), and numbered files of such a name are
its parts (`tokenizer_judged_judge_parts`).
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage
from corpusmill.report.query.connect import place
from corpusmill.report.query.sql import quoted
from corpusmill.report.read import RunReader

#: Shards of one table, by the name before their number; `part` and `tokens` say nothing that the folder does not say.
_NUMBERED = re.compile(r"(\w+)-\d+.*")
_PLAIN = ("part", "tokens")


@dataclass(frozen=True)
class Table:
    """The shards of a table in the order of the stage's plan, as the manifest has them.

    `mixed`: tasks of different versions or configurations have written them, so their columns may differ. Only then are all footers read
    before a query begins.
    """

    name: str
    stage: str
    shards: tuple[OutputFile, ...]
    mixed: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Paths relative to the run."""
        return tuple(f"{self.stage}/{shard.path}" for shard in self.shards)

    def scan(self, storage: Storage) -> str:
        """The SQL expression that reads the files; it gives the virtual columns `filename` and `file_row_number`, too."""
        folder = place(storage, self.stage)
        paths = ", ".join(quoted(f"{folder}/{shard.path}") for shard in self.shards)
        return f"read_parquet([{paths}]{', union_by_name = true' if self.mixed else ''})"


def find_tables(reader: RunReader) -> dict[str, Table]:
    """All Parquet tables that the run's manifests name, by name, in the order of the stages."""
    found: dict[str, Table] = {}
    for stage in reader.stages.values():
        shards: dict[str, list[OutputFile]] = {}
        versions: dict[str, set[tuple[str, str]]] = {}
        for task in stage.tasks:
            for output in task.outputs:
                path = output.path.removeprefix(TRIAL)
                if path.endswith(".parquet"):
                    name = _name(stage.name, PurePosixPath(path))
                    shards.setdefault(name, []).append(output)
                    versions.setdefault(name, set()).add((task.config, task.code))
        found |= {name: Table(name, stage.name, tuple(files), len(versions[name]) > 1) for name, files in shards.items()}
    return found


def _name(stage: str, path: PurePosixPath) -> str:
    folders = ["documents" if part == "data" else part for part in path.parts[:-1]]
    shard = _NUMBERED.fullmatch(path.stem)
    own = [path.stem] if shard is None else [] if shard[1] in _PLAIN else [shard[1], "parts"]
    return re.sub(r"\W", "_", "_".join([stage, *folders, *own]))
