"""Whether the files of finished tasks are there as the manifest says."""

from corpusmill.pipeline.manifest import Manifest, TaskRow
from corpusmill.pipeline.shards import OutputFile
from corpusmill.pipeline.storage import Storage


class Present:
    """Looks at many tasks of one stage. Each folder is listed once: on a store a question for each file would take as long as the work."""

    def __init__(self, storage: Storage, manifest: Manifest):
        self.storage, self.manifest = storage, manifest
        self._listed: dict[str, dict[str, int]] = {}

    def finished(self, task: str, identity: str) -> bool:
        """Whether the task was done as it would be done now, and its files are there. Files that may be of another try are read."""
        if task not in self.manifest.tasks:
            return False
        row = self.manifest.tasks[task]
        return row.identity == identity and all(self._size(o.path) == o.bytes for o in row.outputs) and self._undoubted(row)

    def _size(self, path: str) -> int:
        folder, _, name = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self.storage.listing(folder)
        return self._listed[folder].get(name, -1)

    def _undoubted(self, row: TaskRow) -> bool:
        return row.task not in self.manifest.doubtful or all(self._same(output) for output in row.outputs)

    def _same(self, output: OutputFile) -> bool:
        return self.storage.sha256(output.path) == output.sha256
