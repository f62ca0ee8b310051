"""The phase that makes the index of the evaluation sets, and what the terminal says of what was found."""

from corpusmill.dedup.config import DedupConfig
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun


def prepare(run: StageRun, config: DedupConfig) -> list[FileRef]:
    """The index of the evaluation sets that the recipe names, for the last phase; none where it names none."""
    if config.contamination is None:
        return []
    from corpusmill.dedup.contamination.editor import INDEX_TASK, index_output
    from corpusmill.dedup.contamination.files import set_files

    options = config.contamination
    files = set_files(options.set_configs())
    row = run.once(INDEX_TASK, [file.ref for file in files], lambda _: index_output(files, options), config=options.of_index())
    return [row.ref("dedup", row.outputs[0].path)]


def summary(run: StageRun, config: DedupConfig) -> dict[str, str]:
    if config.contamination is None:
        return {}
    from corpusmill.dedup.contamination.editor import contaminated_summary

    return {"contaminated": contaminated_summary([row.counts for row in run.manifest.rows()]) or "nothing"}
