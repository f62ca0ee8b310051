"""Tests a full disk: one sentence names the file, no partial file gets a final name, and with space the run gives the same bytes."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Driver
from trees import leftovers

from corpusmill.pipeline.errors import InputError

#: Successive sizes of the disk, as shares of the run's needs: each fills up in a different stage.
SHARES = (0.3, 0.97)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Makes a separate, small file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # files that this process has mapped may still be open


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.long
def test_a_run_on_a_disk_that_is_full_again_and_again(
    recipe_and_crawl, small_disk: Path, tmp_path: Path, reference: Path, undisturbed, tree, faults_of
) -> None:
    run, (recipe, crawl) = small_disk / "run", recipe_and_crawl
    command = ("run", recipe, crawl, "--output", str(run), "--engine", "inline")
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in reference.rglob("*") if path.is_file())
    for share in SHARES:
        resize(small_disk, int(needed * share))
        process = Driver(command, tmp_path / "said", {})
        assert process.wait(100) == 2, process.said()
        said = process.said().splitlines()[-1]
        assert str(run) in said and "No space left" in said and "Traceback" not in process.said(), said
        assert [path for path in leftovers(run) if ".tmp-" in path] == []
        if (run / "run.json").exists():
            assert faults_of(run) == []
    resize(small_disk, 4 * needed)
    process = Driver(command, tmp_path / "said", {})
    assert process.wait(100) == 0, process.said()
    assert tree(run) == undisturbed and faults_of(run) == []


@contextlib.contextmanager
def files_of(size: int) -> Iterator[None]:
    """Limits the size of a file, as a quota does. It needs no privileges."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_may_not_grow_end_the_run(corpusmill, recipe_and_crawl, tmp_path: Path) -> None:
    run, (recipe, crawl) = tmp_path / "run", recipe_and_crawl
    with files_of(3_000):
        code, _, err = corpusmill("run", recipe, crawl, "--output", run, "--engine", "inline", "--to", "ingest")
    assert code == 2 and err.count("\n") == 1 and str(run) in err and os.strerror(27) in err
    assert [path for path in leftovers(run) if ".tmp-" in path] == []


def test_a_state_of_a_training_that_does_not_fit(tmp_path: Path) -> None:
    """It ends the training as a full disk ends any other stage: with exit code 2."""
    torch = pytest.importorskip("torch")
    from corpusmill.train.checkpoint import write_tensors

    path = tmp_path / "state.safetensors"
    with files_of(3_000), pytest.raises(InputError, match=rf"^{path}: can't be written \(.*{os.strerror(27)}.*\)\.$"):
        write_tensors(path, {"weights": torch.zeros(1000)})


@pytest.mark.long
def test_a_file_that_may_not_grow(corpusmill, recipe_and_crawl, tmp_path: Path, reference: Path, tree, faults_of) -> None:
    """One task can't be done."""
    run, (recipe, crawl) = tmp_path / "run", recipe_and_crawl
    command = ("run", recipe, crawl, "--output", run, "--engine", "inline", "--to", "filter")
    with files_of(65_000):
        code, _, err = corpusmill(*command)
    said = err.strip().splitlines()[-1]
    assert code == 3 and str(run) in said and os.strerror(27) in said and "Traceback" not in err
    assert [path for path in leftovers(run) if ".tmp-" in path] == []
    assert not (run / "run.json").exists() or faults_of(run) == []
    assert corpusmill(*command)[0] == 0
    assert all(tree(run / stage) == tree(reference / stage) for stage in ("ingest", "filter"))
