"""Tests lists of files that stand for the files: a task that reads the list depends on each file, and a changed list is refused."""

import re
from pathlib import Path

import pytest

from corpusmill.pipeline.config import Config
from corpusmill.pipeline.engine import InlineEngine
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.lists import FileList, input_paths, is_list, read_list, write_list
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.stage import Stage
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.progress import Progress

FILES = [FileRef(f"filter/keys/part-{number}", f"{number:064x}", 10 * number) for number in (2, 0, 1)]


class Listing(Stage):
    name = "filter"
    Config = Config

    def execute(self, run: StageRun) -> None:
        raise NotImplementedError


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    return StageRun(Listing(Config()), Storage(str(tmp_path)), {}, [], InlineEngine(), Progress(False))


def test_a_list_names_its_files_in_their_order(run: StageRun) -> None:
    ref = write_list(run, "keys", FILES, {"starts": [0, 4, 9]})
    assert is_list(ref) and ref.path == "filter/lists/keys.files.json" and ref.bytes == run.run.size(ref.path)
    assert read_list(run.run, ref) == FileList(FILES, {"starts": [0, 4, 9]})
    own = FileRef("filter/data/part-0", "")
    assert input_paths(run.run, [own, ref, own]) == [own.path, *(file.path for file in FILES), own.path]
    assert run.manifest.tasks["lists/keys"].inputs == FILES


def test_a_list_is_written_again_where_a_file_or_what_is_said_of_them_changes(run: StageRun) -> None:
    first = write_list(run, "keys", FILES, {"starts": [0, 4, 9]})
    assert write_list(run, "keys", FILES, {"starts": [0, 4, 9]}) == first and run.performed == 1
    changed = [*FILES[:2], FileRef(FILES[2].path, "f" * 64, FILES[2].bytes)]
    others = [write_list(run, "keys", files, {"starts": starts}) for files, starts in (
        (changed, [0, 4, 9]), (FILES[:2], [0, 4, 9]), (FILES[::-1], [0, 4, 9]), (FILES, [0, 4, 8]),
    )]  # fmt: skip
    assert len({ref.fingerprint for ref in [first, *others]}) == 5 and run.performed == 5


def test_a_list_that_was_changed_is_refused(run: StageRun) -> None:
    ref = write_list(run, "keys", FILES, {})
    run.run.write_bytes(ref.path, run.run.read_bytes(ref.path) + b"\n")
    with pytest.raises(InputError, match=f"{re.escape(run.run.path(ref.path))}: this list is not the one that was written"):
        read_list(run.run, ref)
