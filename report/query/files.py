"""The JSON files of a run as views: `json_STAGE_NAME` (`json_tokenizer_quality`) with one row and one column, `content`.

A file of JSON lines (`json_metrics`, `json_pretrain_logs_train`) has a row a line: `line` (from 1) and `content`; lines that hold no
object, such as one that a killed process left half written, are no rows.
"""

import re
from typing import TYPE_CHECKING

from corpusmill.pipeline.manifest import TRIAL
from corpusmill.report.queries.training import TRAINED
from corpusmill.report.query.connect import place
from corpusmill.report.query.sql import quoted
from corpusmill.report.read import RunReader

if TYPE_CHECKING:
    import duckdb

#: What the page reads by its place, whether or not a manifest names it.
OTHERS = (
    "run.json", "metrics.jsonl", "tokenizer/quality.json", "tokens/plan.json", "tokens/train/shards.json",
    "tokens/validation/shards.json", *(f"{stage}/logs/{name}.jsonl" for stage in TRAINED for name in ("train", "speed", "samples")),
    *(f"{stage}/metrics.json" for stage in TRAINED), "align/pair_sources.json", "align/judged.json", "evaluate/scores.json",
    "evaluate/samples.json",
)  # fmt: skip


def find_files(reader: RunReader) -> dict[str, str]:
    """The run's JSON files, relative to the run, by the name of their view."""
    named = [f"{stage.name}/{path}" for stage in reader.stages.values() for path in stage.outputs("") if path.endswith((".json", ".jsonl"))]
    others = [path for path in OTHERS if path not in named and reader.storage.exists(path)]
    return {view_name(path): path for path in (*named, *others)}


def view_name(path: str) -> str:
    """The view of a JSON file: `tokens/train/shards.json` is `json_tokens_train_shards`."""
    stage, _, rest = path.rpartition(".")[0].partition("/")
    return "_".join(["json", stage, re.sub(r"\W", "_", rest.removeprefix(TRIAL))]).rstrip("_")


def add_views(connection: "duckdb.DuckDBPyConnection", reader: RunReader) -> None:
    """Adds the views. Nothing is read before a query asks for it; a file that holds no JSON makes that query fail, and no other."""
    for name, path in find_files(reader).items():
        file = quoted(place(reader.storage, path))
        query = f"SELECT content::JSON AS content FROM read_text({file})"
        if path.endswith(".jsonl"):
            lines = f"SELECT row_number() OVER () AS line, json AS content FROM read_ndjson_objects({file}, ignore_errors=true)"
            query = f"SELECT * FROM ({lines}) WHERE json_type(content) = 'OBJECT'"
        connection.execute(f"CREATE VIEW {name} AS {query}")
