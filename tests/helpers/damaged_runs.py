"""Damaged or unusual runs, each with the words that its report has to print."""

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from built_run import RunBuilder, write_run

STAGES = ("ingest", "filter", "dedup", "tokens", "training")
#: Characters that no text file contains, but JSON and Parquet may.
NUL, SURROGATE, NO_UTF8 = "nul\0nul", "lone\ud800surrogate", b"no utf-8: \xff\xfe\xc3"


@lru_cache
def _template(stages: tuple[str, ...]) -> TemporaryDirectory[str]:
    """Returns a run that serves as a template for copies; it is removed when Python ends."""
    folder = TemporaryDirectory(prefix="corpusmill-run-")
    write_run(Path(folder.name) / "run", stages)
    return folder


def whole(run: Path, stages: tuple[str, ...] = STAGES) -> None:
    """Makes an undamaged run, or its first stages."""
    shutil.copytree(Path(_template(stages).name) / "run", run)


def _shard(run: Path, stage: str = "filter", kind: str = "report") -> Path:
    return run / stage / kind / "part-00000.parquet"


def _rewrite(shard: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(shard)
    changed = change(table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), shard)


def _replaced(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def half_done(run: Path) -> None:
    """Makes a run that was killed in the filter stage while it wrote its manifest's second row."""
    whole(run, STAGES[:2])
    manifest = run / "filter" / "manifest.jsonl"
    first, second = manifest.read_bytes().splitlines(keepends=True)[:2]
    manifest.write_bytes(first + second[: len(second) // 2])


def damaged_inside(run: Path) -> None:
    """Overwrites the data pages of a shard and leaves its footer whole."""
    whole(run)
    for kind in ("report", "data"):
        shard = _shard(run, kind=kind)
        content = bytearray(shard.read_bytes())
        footer = int.from_bytes(content[-8:-4], "little")
        content[4 : len(content) - footer - 8] = b"\xff" * (len(content) - footer - 12)
        shard.write_bytes(content)


def older_version(run: Path) -> None:
    whole(run)
    for shard in (run / "filter" / "report").iterdir():
        _rewrite(shard, lambda table: table.drop_columns(["chars_in", "failed"]))


def other_types(run: Path) -> None:
    """Gives a column another type in each shard of one report."""
    whole(run)
    _rewrite(_shard(run), lambda table: table.set_column(
        table.column_names.index("words"), "words", pa.array([str(value) for value in table["words"].to_pylist()])))  # fmt: skip


def none_kept(run: Path) -> None:
    whole(run, STAGES[:1])
    for shard in (run / "ingest" / "report").iterdir():
        _rewrite(shard, lambda t: _replaced(_replaced(t, "kept", [False] * len(t)), "failed", [["no_text"]] * len(t)))


def many_rules(run: Path) -> None:
    whole(run, STAGES[:2])
    names = [[f"rule-{row}-{number}" for number in range(400)] for row in range(len(pq.read_table(_shard(run))))]
    _rewrite(_shard(run), lambda table: _replaced(_replaced(table, "failed", names), "kept", [False] * len(table)))


def only_trained(run: Path) -> None:
    """Makes a run that only tunes an existing model: its recipe has no data stage."""
    whole(run, ("training",))
    (run / "run.json").write_text(json.dumps({"recipe": {"sft": {}, "align": {}, "evaluate": {}}, "versions": {"corpusmill": "0"}}))


def odd_characters(run: Path) -> None:
    whole(run)
    RunBuilder(run).json("evaluate/samples.json", {"pretrain": [{"prompt": SURROGATE, "text": NUL}], SURROGATE: [{"text": SURROGATE}]})
    RunBuilder(run).json("run.json", {"recipe": {NUL: SURROGATE}, "versions": {SURROGATE: NUL}})
    _rewrite(_shard(run), lambda table: _replaced(_replaced(table, "url", [NUL] * len(table)), "language", [NUL] * len(table)))


def no_utf8(run: Path) -> None:
    """Makes text columns with invalid UTF-8, which Parquet does not forbid."""
    whole(run)
    for kind, columns in (("report", ("url", "language")), ("data", ("url", "text"))):

        def change(table: pa.Table, columns: tuple[str, ...] = columns) -> pa.Table:
            for name in columns:
                type_ = table.schema.field(name).type
                raw = pa.array([NO_UTF8] * len(table), pa.large_binary() if type_ == pa.large_string() else pa.binary())
                table = table.set_column(table.column_names.index(name), table.schema.field(name), raw.view(type_))
            return table

        _rewrite(_shard(run, kind=kind), change)


def broken_json(run: Path) -> None:
    whole(run)
    for path, content in (("run.json", "{"), ("evaluate/scores.json", "[1"), ("tokenizer/quality.json", '{"judged": 3}'),
                          ("tokens/train/shards.json", "null"), ("metrics.jsonl", '{"stage": 1, "seconds": "x"}\nnot json\n')):  # fmt: skip
        (run / path).write_text(content)


def lost_filter(run: Path) -> None:
    whole(run)
    shutil.rmtree(run / "filter")


#: name: the function that makes the run, and the first words that its report has to print.
DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "half done": (half_done, ("filter: not finished (tasks done: 1)",)),
    "damaged inside": (damaged_inside, ("row group 0 can't be read",)),
    "an older version": (older_version, ("filter: its report is of another version",)),
    "other types": (other_types, ()),
    "none kept": (none_kept, ("none of 60 documents was kept",)),
    "ten thousand rules": (many_rules, ()),
    "only trained": (only_trained, ()),
    "odd characters": (odd_characters, ()),
    "no UTF-8": (no_utf8, ("row group 0 can't be read",)),
    "broken JSON": (broken_json, ("run.json: not readable JSON",)),
    "no filter": (lost_filter, ("filter: the recipe has this stage, but it has not run yet.",)),
}
