"""`corpusmill push`: uploads the documents of a run, the removed documents with their reasons, the report and the card to a dataset
repository of the Hugging Face hub.

The files go in commits of a few dozen; the card comes last. What the repository has already is not sent again, so a push that was killed
goes on when it is run again. Files of an earlier push that the run no longer has are deleted from the repository.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.filters.own import RunsCode, looking
from corpusmill.filters.worker import FilterConfig, FilterWorker, Rewriter
from corpusmill.pipeline.cache import sha256_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.recipe import stage_command
from corpusmill.pipeline.redact import redact
from corpusmill.pipeline.safe import safe_line
from corpusmill.pipeline.schemas import DOCUMENTS
from corpusmill.pipeline.shards import iter_tables, read_table
from corpusmill.report.card.contents import Contents
from corpusmill.report.card.data_card import CARD, make_card, unfinished
from corpusmill.report.page.html import REPORT_FILE, render
from corpusmill.report.queries.summary import Summary, read_summary
from corpusmill.report.query.run import Run
from corpusmill.report.read import RunReader

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The stages whose removed documents have texts: what `ingest` leaves out has none.
REMOVING = ("filter", "dedup")
REASONS = pa.schema([pa.field("stage", pa.string(), nullable=False), pa.field("failed", pa.list_(pa.string()), nullable=False)])
#: Bytes of documents that are read at once.
PART = 32_000_000
#: The most files and bytes of a commit. The hub advises 50 to 100 files, and the removed documents of a commit lie on this disk.
FILES, BYTES = 50, 2_000_000_000
#: Files of a repository that this command has sent; it may delete them.
OURS = re.compile(r"(ingest|filter|dedup)/data/[^/]+\.parquet|removed/(filter|dedup)/[^/]+\.parquet")
LEFT_OUT = "(The text is left out here, because steps of the filter rewrite texts, and this one as it came in may hold personal data.)"


@dataclass(frozen=True)
class Push:
    """What one push sends to `repository` (owner/name). `removing`: the number of removed documents that go, and of their
    characters, by stage."""

    reader: RunReader
    contents: Contents
    repository: str
    public: bool
    licence: str | None
    removing: dict[str, tuple[int, int]]
    texts: dict[str, bytes]  # README.md and report.html

    # ---- what would be sent ----

    def lines(self) -> list[str]:
        """Returns the plan: what goes where, of which size, and what to think of before."""
        from huggingface_hub import HfApi

        seen = "everyone can read it" if self.public else "private; with --public everyone can read it"
        lines = [f"To the dataset repository {self.repository} at {HfApi().endpoint} ({seen}):"]
        size = sum(output.bytes for output in self.contents.files)
        stage, files = self.contents.stage, len(self.contents.files)
        lines.append(f"  {stage}/data/: {counted(self.contents.documents, 'document')} in {counted(files, 'file')}, {size / 1e6:,.2f} MB")
        for name, (documents, characters) in self.removing.items():
            about = f"{documents:,} documents of {characters:,} characters that {name} removed"
            lines.append(f"  removed/{name}/: {about}, with the rules that they failed")
        lines += [f"  {path}: {len(content) / 1e6:,.2f} MB" for path, content in self.texts.items()]
        lines.append(f"Licence: {self.licence or 'none is stated; --licence ID states one, for example odc-by'}.")
        if rewrites(self.reader):
            lines.append("Where the filter's steps rewrite texts, removed documents are rewritten, too; the report leaves out such texts.")
        else:
            lines.append("Personal data: no step of the filter replaces it (pii does), so all texts go as they are.")
        local = sorted(source for source in self.contents.sources if source.startswith("/"))
        if local:
            lines.append(f"The column source names files of this machine, for example {safe_line(local[0], 200)}.")
        return lines

    # ---- sending ----

    def send(self, say: Callable[[str], None]) -> str:
        """Sends all files and returns the repository's address. Calls `say` with a sentence after each commit.

        Raises InputError if the hub refuses, CorpusmillError if it can't be reached.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
        from huggingface_hub.utils import disable_progress_bars, logging

        if get_token() is None:
            raise InputError("push: no token for the hub; set HF_TOKEN, or log in with: hf auth login")
        disable_progress_bars()
        logging.set_verbosity_error()
        api, sent = HfApi(), set(self.texts)

        def commit(message: str, operations: list[Any]) -> None:
            api.create_commit(self.repository, operations, commit_message=message, repo_type="dataset")

        with one_sentence(self.repository, api.endpoint), TemporaryDirectory() as folder:
            address, there = self._repository(api)
            for batch in batches(self.files(Path(folder))):
                commit("Documents", [CommitOperationAdd(path, str(place)) for path, place in batch])
                sent |= {path for path, _ in batch}
                say(f"{len(sent) - len(self.texts):,} files are there, the last of them {batch[-1][0]}.")
                for _, place in batch:
                    if place.is_relative_to(folder):
                        place.unlink()
            gone = [CommitOperationDelete(path) for path in there if path not in sent and OURS.fullmatch(path)]
            commit("Card and report", [*(CommitOperationAdd(path, content) for path, content in self.texts.items()), *gone])
        return address

    def _repository(self, api: "HfApi") -> tuple[str, list[str]]:
        """Creates the repository if it is not there. Returns its address and its files. Raises InputError if it is public and should not
        be, or if its card is not ours."""
        address = api.create_repo(self.repository, repo_type="dataset", private=not self.public, exist_ok=True)
        if not self.public and not api.dataset_info(self.repository).private:
            raise InputError(f"{self.repository}: everyone can read this repository; --public says that you mean it.")
        there = api.list_repo_files(self.repository, repo_type="dataset")
        if CARD in there and not any(map(OURS.fullmatch, there)):
            raise InputError(f"{self.repository}: its {CARD} is not of corpusmill, so nothing is sent there; choose another repository.")
        return safe_line(str(address), 200), there

    def files(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Yields each file of documents: its path in the repository, and where it lies. Those that are made for it lie in `folder`."""
        storage = self.reader.storage
        for output in self.contents.files:
            path = f"{self.contents.stage}/{output.path}"
            place = new_file(folder, path) if storage.remote else Path(storage.path(path))
            if storage.remote:
                with storage.open_read(path) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)
            if sha256_of(place) != output.sha256:
                raise InputError(f"{storage.path(path)}: not the file that the run wrote; corpusmill verify tells more.")
            yield path, place
        for stage in self.removing:
            read = self.reader.inputs(stage)
            for report in self.reader.stages[stage].outputs("report/"):
                path, name = f"removed/{stage}/{PurePosixPath(report).name}", PurePosixPath(report).stem
                if write_removed(self.reader, stage, f"{stage}/{report}", read[name], new_file(folder, path)):
                    yield path, folder / path


def plan(
    run: str, repository: str, *, public: bool = False, removed: bool = True, name: str | None = None, licence: str | None = None,
    description: str | None = None, although_stale: bool = False,
) -> Push:  # fmt: skip
    """Reads a run and returns what a push of it would send. Nothing is sent, and the hub is not asked.

    `removed`: also the removed documents. Raises InputError if the run is not finished or stale (`although_stale`: goes on, without the
    removed documents of stale stages), if `repository` is not OWNER/NAME, and if it shall be public without a licence.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"push: {safe_line(repository, 120)} is no name of a repository; expected OWNER/NAME.") from error
    if "/" not in repository:
        raise InputError(f"push: {repository} has no owner; expected OWNER/NAME.")
    if public and licence is None:
        raise InputError("push: --public needs --licence ID, for example odc-by: others have to know what they may do with the documents.")
    summary = read_summary(run)
    reader = summary.reader
    removing = removed_documents(reader) if removed else {}
    title = name or repository.partition("/")[2]
    contents, card = make_card(summary, title, licence, description, although_stale, repository, bool(removing))
    if because := unfinished(summary, contents):
        raise InputError(f"{reader.storage.root}: only a finished run is published. {because[0]}")
    report = render(public_summary(summary), "RUN").encode("utf-8", "replace")
    return Push(reader, contents, repository, public, licence, removing, {CARD: card, REPORT_FILE: report})


def removed_documents(reader: RunReader) -> dict[str, tuple[int, int]]:
    """Returns the numbers of documents and characters that each stage has removed. Stages that are stale or removed none are left out."""
    found = {}
    stale = reader.stale.because if reader.stale else {}
    with Run(reader) as run:
        for stage in REMOVING:
            if f"{stage}_report" in run.names and stage not in stale:
                query = f"SELECT count(*), coalesce(sum(chars_in), 0)::BIGINT FROM {stage}_report WHERE NOT kept"
                found[stage] = run.rows(query)[0]
    return {stage: sums for stage, sums in found.items() if sums[0]}


def public_summary(summary: Summary) -> Summary:
    """Returns the summary without texts that the filter read, if its steps rewrite texts: personal data would be in them."""
    if not rewrites(summary.reader):
        return summary
    page = summary.page
    near = [replace(each, shown=[item | {"text": LEFT_OUT} for item in each.shown]) for each in page.near.get("filter", [])]
    return replace(summary, page=replace(page, near={**page.near, "filter": near}))


def filter_worker(reader: RunReader) -> FilterWorker:
    return FilterWorker(FilterConfig.model_validate(reader.settings("filter")), reader.storage, {})


def rewrites(reader: RunReader) -> bool:
    """Whether a step of the run's filter stage rewrites texts, as `pii` does, or may do so: no code of the run is loaded to know."""
    try:
        with looking():
            return reader.stages["filter"].status != "missing" and any(step.step.rewrites for step in filter_worker(reader).steps)
    except RunsCode:
        return True


def write_removed(reader: RunReader, stage: str, report: str, documents: str, target: Path) -> int:
    """Writes the documents that a shard's report removes, as Parquet, and returns their number; writes nothing if it removes none.

    `report` and `documents`: the shard's paths in the run. Documents that `filter` removed get the texts that its rewriting steps give
    them. Memory holds the report and a part of the shard. Raises InputError if the report is about other documents.
    """
    rows = read_table(reader.storage, report)
    removed = rows.num_rows - int(np.count_nonzero(rows["kept"].to_numpy()))
    if not removed:
        return 0
    rewriter = Rewriter(filter_worker(reader)) if stage == "filter" else None
    about = f"is not about the documents of {documents}; to redo it: {stage_command(reader.storage.root, stage)}"
    schema, begin = pa.schema([*DOCUMENTS, *REASONS]), 0
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for table in iter_tables(reader.storage, documents, part_bytes=PART):
            part = rows.slice(begin, table.num_rows)
            begin += table.num_rows
            if table["id"].to_pylist() != part["id"].to_pylist():
                raise InputError(f"{reader.storage.path(report)}: {about}")
            places = pa.array(np.flatnonzero(~part["kept"].to_numpy()))
            found = rewriter.at(table, part, places) if rewriter else table.take(places)
            columns = {**{name: found[name] for name in DOCUMENTS.names}, "failed": part["failed"].take(places)}
            columns["stage"] = pa.repeat(stage, len(places))
            writer.write_table(pa.table({name: columns[name] for name in schema.names}).cast(schema))
    if begin != rows.num_rows:
        raise InputError(f"{reader.storage.path(report)}: {about}")
    return removed


def new_file(folder: Path, path: str) -> Path:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    return folder / path


def batches(files: Iterator[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """Yields the files of each commit: at most FILES, and no further one after BYTES."""
    batch: list[tuple[str, Path]] = []
    size = 0
    for path, place in files:
        batch.append((path, place))
        size += place.stat().st_size
        if len(batch) == FILES or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def one_sentence(repository: str, endpoint: str) -> Iterator[None]:
    """Turns the errors of the hub and of the network into one sentence."""
    from huggingface_hub.errors import HfHubHTTPError

    # The bases have the base of all errors of the hub's HTTP library, of which several are in use.
    failures: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__, RuntimeError)
    try:
        yield
    except failures as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # "Error while uploading": of what?
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if status == 401:
            raise InputError("push: the hub does not accept the token (of HF_TOKEN, or of hf auth login).") from error
        if status in (403, 404) and cause is error:  # else the store of the files answered, to an address that is valid for some hours
            raise InputError(f"{repository}: the token has no right to write to this repository.") from error
        again = "the same command goes on where this one stopped"
        what = safe_line(redact(str(cause)), 200)  # the addresses of files carry signatures
        if status is not None:
            raise CorpusmillError(f"{repository}: the hub answered with an error ({what}); {again}.") from error
        raise CorpusmillError(f"{repository}: sending to {endpoint} failed ({type(cause).__name__}: {what}); {again}.") from error
