"""The phases that find repeated passages: anchors by shard and by range, then the windows of repeated anchors by shard and by range."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from corpusmill.dedup.config import DedupConfig
from corpusmill.dedup.sections import plan_ranges
from corpusmill.pipeline.lists import write_list
from corpusmill.pipeline.manifest import FileRef, TaskRow
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Piece

#: There may be a window for each word, which are far more than lines.
FINER = 4


def prepare(
    run: StageRun, config: DedupConfig, documents: list[FileRef], clusters: list[FileRef], lines: Sequence[tuple[FileRef, ...]]
) -> list[tuple[FileRef, ...]]:
    """For each document shard the files that its SubstringEditor reads; empty ones where the recipe asks for no substrings.

    `clusters`: for each shard what has its rows of the cluster tables. `lines`: what its LineEditor reads. Passages are looked for in the
    texts that it leaves.
    """
    from corpusmill.dedup.substrings.find import AnchorWorker, RepeatedAnchorWorker, RepeatedWindowWorker, WindowWorker

    if config.substrings is None:
        return [()] * len(documents)
    seen = DedupConfig(lines=config.lines, substrings=config.substrings)  # all that these phases depend on
    count = plan_ranges(documents, FINER)
    params = {"ranges": count}
    stems = [PurePosixPath(ref.path).stem for ref in documents]
    inputs = [(ref, rows, *own) for ref, rows, own in zip(documents, clusters, lines, strict=True)]
    place = [{"shard": shard} for shard in range(len(documents))]

    def ranges(name: str, listed: FileRef) -> list[Piece]:
        return [Piece(f"substrings/{name}-{number:05d}", (listed,), {"range": number}) for number in range(count)]

    def written(name: str, files: Sequence[FileRef]) -> FileRef:
        return write_list(run, f"substrings-{name}", files)

    pieces = [Piece(f"substrings/anchors-{stem}", read, where) for stem, read, where in zip(stems, inputs, place, strict=True)]
    anchors = _files(run.map("substrings: anchors", AnchorWorker, pieces, params, config=seen))
    of_all = ranges("repeated", written("anchors", anchors))
    repeated = written("repeated", _files(run.map("substrings: repeated anchors", RepeatedAnchorWorker, of_all, config=seen)))
    pieces = [
        Piece(f"substrings/windows-{stem}", (*read, own, repeated), where)
        for stem, read, own, where in zip(stems, inputs, anchors, place, strict=True)
    ]
    windows = _files(run.map("substrings: windows", WindowWorker, pieces, params, config=seen))
    of_all = ranges("cut", written("windows", windows))
    cuts = written("cut", _files(run.map("substrings: repeated windows", RepeatedWindowWorker, of_all, config=seen)))
    return [(own, cuts) for own in windows]


def _files(rows: Sequence[TaskRow]) -> list[FileRef]:
    return [row.ref("dedup", row.outputs[0].path) for row in rows]
