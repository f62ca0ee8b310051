"""`tokens compare`: compares a run's tokenizer with others on the text that the run judged it on."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.stage import Task
from corpusmill.report.queries.tokens import QUALITY
from corpusmill.report.read import RunReader
from corpusmill.tokenize.compared_tokenizers import add_up, by_tokenizer
from corpusmill.tokenize.judge import THIS_RUN, JudgeWorker
from corpusmill.tokenize.tokenizer_config import JudgeConfig


def compare(folder: str, others: Sequence[str]) -> dict[str, Any]:
    """Returns the content of `quality.json` for these tokenizers in place of the ones that the run compared. Writes nothing.

    Raises InputError if the run has judged no tokenizer, or one of `others` can't be loaded.
    """
    reader = RunReader(folder)
    quality = reader.json(QUALITY, dict)
    if quality is None or "selection" not in quality:
        raise InputError(
            f"{reader.storage.path(QUALITY)}: this run has judged no tokenizer yet (run: {stage_command(folder, 'tokenizer')})."
        )
    names = list(dict.fromkeys(others))
    worker = JudgeWorker(JudgeConfig(compare=names), reader.storage, {"selection": quality["selection"]})
    worker.setup()
    tables: list[pa.Table] = []
    for number, path in enumerate(reader.inputs("tokenizer").values()):
        found = worker.process(Task(f"judge-{number:05d}", (FileRef(path, ""),))).files.values()
        tables += [table for table in found if isinstance(table, pa.Table)]
    measured = by_tokenizer(add_up(tables), [THIS_RUN, *worker.config.compare])
    judged = {**quality["judged"], **{name: measured[THIS_RUN][name] for name in ("documents", "utf8_bytes")}}
    return {**quality, "judged": judged, "tokenizers": measured}
