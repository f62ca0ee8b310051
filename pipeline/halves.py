"""A piece that has no room in memory, done in parts one after the other, with the bytes of the whole.

A worker says how its piece is cut in two (`Worker.halves`) and how the parts' outputs become one (`Worker.join`). What the parts give waits
on disk, as Arrow files in a temporary folder of this machine, and comes together row group by row group.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from corpusmill.pipeline.shards import ROW_GROUP_ROWS, Content, parquet_writer, write_parquet
from corpusmill.pipeline.stage import Output, Piece, Worker
from corpusmill.pipeline.temporary import room_for

#: What has no room where the temporary folder is full.
PARTS = "the parts of a task that is too large for memory"


def cut(worker: Worker, piece: Piece, parts: int) -> list[Piece]:
    """At most `parts` (a power of two) pieces that are one together, in order; fewer where some can't be cut."""
    if parts <= 1 or (both := worker.halves(piece)) is None:
        return [piece]
    return [part for half in both for part in cut(worker, half, parts // 2)]


@contextmanager
def performed(worker: Worker, piece: Piece, parts: int) -> Iterator[Output]:
    """The output of a piece, done in so many parts; its files are there for the time of the block."""
    pieces = cut(worker, piece, parts)
    if len(pieces) == 1:
        yield worker.process(piece)
        return
    with room_for(PARTS):
        holder = tempfile.TemporaryDirectory(prefix="corpusmill-parts-")
    with holder as folder:
        outputs: list[Output] = []
        for number, part in enumerate(pieces):
            output = worker.process(part)
            with room_for(PARTS):
                outputs.append(_spilled(output, Path(folder), number))
        with room_for(PARTS):
            joined = worker.join(piece, outputs, Path(folder))
        yield joined


def _spilled(output: Output, folder: Path, number: int) -> Output:
    """The output with its tables in files, which are mapped and take no memory."""
    files: dict[str, Content] = {}
    for place, (path, content) in enumerate(output.files.items()):
        files[path] = _on_disk(content, folder / f"{number}-{place}.arrow") if isinstance(content, pa.Table) else content
    return replace(output, files=files)


def _on_disk(table: pa.Table, path: Path) -> pa.Table:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    path.unlink()  # the mapping keeps it, and nothing stays of it where this process is killed
    return table


def joined_tables(outputs: Sequence[Output], folder: Path) -> Output:
    """Outputs of tables with equal names as one: rows behind rows, sums of the counts. The tables are Parquet files in `folder`."""
    files: dict[str, Content] = {}
    for place, path in enumerate(outputs[0].files):
        tables = [output.files[path] for output in outputs]
        if not all(isinstance(table, pa.Table) for table in tables):
            raise TypeError(f"{path}: only tables can be joined")
        files[path] = folder / f"joined-{place}.parquet"
        _write(pa.concat_tables(tables), folder / f"joined-{place}.parquet")
    counts: Counter[str] = Counter()
    for output in outputs:
        counts.update(output.counts)
    return Output(
        files,
        rows_in=sum(output.rows_in for output in outputs),
        kept=sum(output.kept for output in outputs),
        dropped=sum(output.dropped for output in outputs),
        bytes_in=sum(output.bytes_in for output in outputs),
        counts=dict(counts),
        warnings=[warning for output in outputs for warning in output.warnings],
    )


def _write(table: pa.Table, path: Path) -> None:
    """As `write_parquet`, but no more than a row group is in memory."""
    with open(path, "wb") as sink:
        if not table.num_rows:
            write_parquet(table, sink)
            return
        with parquet_writer(table.schema, sink) as writer:
            for begin in range(0, table.num_rows, ROW_GROUP_ROWS):
                writer.write_table(table.slice(begin, ROW_GROUP_ROWS).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
