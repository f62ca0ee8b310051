"""Makes a folder of runs: two that decide differently, one that is damaged, and links and hidden folders that are no runs."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from built_run import write_run


def write_many_runs(folder: Path) -> Path:
    """Writes the runs `first`, `group/second` (whose rule `short` drops more), and `damaged`; also a link to a run, and a hidden one."""
    for name in ("first", "group/second", ".hidden", "a/b/c/too-deep"):
        write_run(folder / name, ("ingest", "filter"))
    for shard in sorted((folder / "group/second/filter/report").iterdir()):
        _stricter(shard)
    (folder / "damaged").mkdir()
    (folder / "damaged/run.json").write_text("{no")
    (folder / "link").symlink_to(folder / "first")
    return folder


def _stricter(shard: Path) -> None:
    """Decides again with `words < 40` in place of `words < 20`."""
    table = pq.read_table(shard)
    rows = table.to_pylist()
    failed = [[*(["short"] if row["words"] < 40 else []), *(rule for rule in row["failed"] if rule != "short")] for row in rows]
    columns = {"failed": pa.array(failed, table.schema.field("failed").type), "kept": pa.array([not rules for rules in failed])}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    metadata = {**table.schema.metadata}
    metadata[b"corpusmill.rules"] = metadata[b"corpusmill.rules"].replace(b'"threshold": 20', b'"threshold": 40')
    pq.write_table(table.replace_schema_metadata(metadata), shard)
