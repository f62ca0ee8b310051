"""Exports the token shards of a run to a folder in another format. Shards are checked while they stream; the folder appears whole."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.run import no_tokens
from corpusmill.pipeline.storage import TEMPORARY, Storage, fsync_folder, is_remote
from corpusmill.pipeline.token_shards import SHARDS_FILE, SPLITS, TokenShards, split_folders
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.tokenize.export.flat_files import LLMC, Datatrove, Megatron, NanoGPT
from corpusmill.tokenize.export.row_files import MDS, LitData, ParquetIds
from corpusmill.tokenize.export.source import SplitSource, TokenFormat

FORMATS: dict[str, type[TokenFormat]] = {
    "nanogpt": NanoGPT,
    "llmc": LLMC,
    "megatron": Megatron,
    "datatrove": Datatrove,
    "parquet": ParquetIds,
    "mds": MDS,
    "litdata": LitData,
}
TOKENIZER = "tokenizer/tokenizer.json"
EXPORT_FILE = "export.json"


def export(
    run: str,
    format_name: str,
    output: str,
    splits: Iterable[str] = SPLITS,
    sequence_length: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    stale: str | None = None,
) -> dict[str, Any]:
    """Writes the tokens of a run, or of a set that runs were appended to, to the folder `output` in one of FORMATS. Returns the content of
    its `export.json`.

    A split without documents is left out. Raises InputError, and leaves nothing behind, where a split is missing, a shard is cut short or
    has another sha256, the tokenizer is another one, the vocabulary is too large for the format, `sequence_length` is given for a format
    without rows, or `output` is not empty (with `force`: holds anything but a finished export).
    `stale`: why the run's tokens are out of date, for `export.json`.
    """
    written, storage = FORMATS[format_name](sequence_length), Storage(run)
    if sequence_length and not written.has_rows:
        rows = " and ".join(name for name, made in FORMATS.items() if made.has_rows)
        raise InputError(f"--sequence-length {sequence_length}: {format_name} is read at any length; only {rows} have rows of one.")
    if Path(output).resolve().is_relative_to(Path(storage.path("tokens")).resolve()):
        raise InputError(f"{output}: this lies in the folder of the stage tokens, which removes what it did not write; choose another.")
    if storage.exists("run.json") and not split_folders(storage):
        raise InputError(no_tokens(run))
    folders = {split: f"tokens/{split}" for split in SPLITS} | split_folders(storage)
    if any(Path(output).resolve().is_relative_to(Path(storage.path(folder)).resolve()) for folder in folders.values()):
        raise InputError(f"{output}: this lies among the token shards that are to be exported; choose another.")
    tokenizer_json = _tokenizer(storage, folders)
    sha256 = hashlib.sha256(tokenizer_json).hexdigest()
    with new_folder(output, lambda target: _may_replace(target, force)) as folder, (progress or Progress(False)).transfer("export") as done:
        sources = [SplitSource(storage.path(folders[split]), split, sha256, done) for split in splits]
        sources = [source for source in sources if len(source)]
        if not sources:
            raise InputError(f"{storage.path('tokens')}: there are no tokens of {' and '.join(splits)} to export.")
        _check_vocabulary(written, format_name, sources[0])
        for source in sources:
            written.write(source, folder)
        written.finish(folder, [source.split for source in sources], tokenizer_json)
        (folder / "tokenizer.json").write_bytes(tokenizer_json)
        content = _describe(run, format_name, written, sources, folder, stale)
        (folder / EXPORT_FILE).write_text(json.dumps(content, indent=1) + "\n")
    return content


def _tokenizer(storage: Storage, folders: dict[str, str]) -> bytes:
    """Returns the run's `tokenizer.json`; for a set, that of a run that was appended to it."""
    if storage.exists(TOKENIZER):
        return storage.read_bytes(TOKENIZER)
    for folder in folders.values():
        if storage.exists(f"{folder}/{SHARDS_FILE}"):
            described = TokenShards(storage.path(folder)).description
            for run in map(Storage, described.homes):
                content = run.read_bytes(TOKENIZER) if run.exists(TOKENIZER) else b""
                if hashlib.sha256(content).hexdigest() == described.tokenizer_sha256:
                    return content
    raise InputError(f"{storage.path(TOKENIZER)}: no such file, so the tokens of {storage.root} can't be read.")


def _may_replace(target: Path, force: bool) -> bool:
    """Whether the export may replace `target`: an empty folder or, with `force`, a finished export."""
    if not target.is_dir() or target.is_symlink():
        return False
    if not any(target.iterdir()):
        return True
    if not _is_export(target):
        return False
    if not force:
        raise InputError(f"{target}: this folder holds an earlier export; --force replaces it.")
    return True


def _is_export(folder: Path) -> bool:
    try:
        return parse_json((folder / EXPORT_FILE).read_text())["format"] in FORMATS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_vocabulary(written: TokenFormat, name: str, source: SplitSource) -> None:
    size, largest = source.description.vocabulary_size, written.largest_vocabulary
    if largest is not None and size > largest:
        wide = ", ".join(other for other, made in FORMATS.items() if made.largest_vocabulary is None)
        raise InputError(
            f"{source.shards.storage.root}: a vocabulary of {size:,} does not fit the format {name}, "
            f"which has 16 bits for an id (formats that take it: {wide})."
        )


def _describe(run: str, name: str, written: TokenFormat, sources: list[SplitSource], folder: Path, stale: str | None) -> dict[str, Any]:
    """Returns the content of `export.json`. Nothing in it depends on the time or on the place of the export."""
    first = sources[0].description
    return {
        "format": name,
        "written_by": f"corpusmill {corpusmill.__version__}",
        "run": run,
        **({"stale": stale} if stale else {}),
        "tokenizer_sha256": first.tokenizer_sha256,
        "vocabulary_size": first.vocabulary_size,
        "end_of_text": first.end_of_text_id,
        "dtype": written.dtype(sources[0].dtype).name,
        "sequence_length": written.sequence_length,
        "splits": {
            source.split: {
                "tokens": source.description.tokens,
                "documents": source.description.documents,
                "utf8_bytes": source.description.utf8_bytes,
                "shards": {shard.file: shard.sha256 for shard in source.description.shards},
            }
            for source in sources
        },
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()},
    }


def mark(folder: str, stale: str) -> None:
    """Writes into an export's `export.json` why it is out of date."""
    storage = Storage(folder)
    content = {**parse_json(storage.read_bytes(EXPORT_FILE)), "stale": stale}
    storage.write_bytes(EXPORT_FILE, f"{json.dumps(content, indent=1)}\n".encode())


# ---- a folder that appears whole or not at all -----------------------------------------------------------


@contextmanager
def new_folder(output: str, may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields a temporary folder beside `output`. When the block ends without an exception, the folder is fsynced and renamed to `output`.

    Raises InputError if `may_replace` does not allow to replace `output`, if another process is writing it, or if it can't be
    written (no room, no permission).
    """
    if is_remote(output):
        raise InputError(f"{output}: an export is written to a local folder; copy it from there.")
    target = Path(output.removeprefix("file://")).resolve()
    if not target.name:
        raise InputError(f"{target}: this is not an empty folder.")
    temporary, old = (target.with_name(f"{TEMPORARY}{target.name}{end}") for end in ("", "-old"))
    try:
        if old.exists() and not target.exists():  # killed between the two renames below
            old.rename(target)
        _check_free(target, may_replace)
        with _locked(temporary, target):
            try:
                yield temporary
                _fsync_all(temporary)
                _take_place(temporary, target, old, may_replace)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    except OSError as error:
        raise InputError(f"{target}: can't be written ({error.strerror or error}).") from error


def _check_free(target: Path, may_replace: Callable[[Path], bool]) -> None:
    if os.path.lexists(target) and not may_replace(target):
        raise InputError(f"{target}: this is not an empty folder.")


def _take_place(temporary: Path, target: Path, old: Path, may_replace: Callable[[Path], bool]) -> None:
    """Renames `temporary` to `target`. The old content is removed only after that."""
    _check_free(target, may_replace)  # again: another process may have put something there
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    fsync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(folder: Path, target: Path) -> Iterator[None]:
    """Makes the folder, removes what a killed process left in it, and holds a lock on it during the block."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = folder.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise InputError(f"{target}: another corpusmill is writing this folder right now.")
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
    finally:
        os.close(descriptor)


def _fsync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        fsync_folder(path)  # works for files, too
