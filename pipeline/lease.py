"""The lease of a run, `RUN/lease.json`: one process holds and renews it while it works on the run.

Another process takes over the lease where the holder's process no longer runs on this machine, or where it has watched the lease for
`ttl` seconds (by its own clock) and nobody has renewed it. A holder that could not renew in time asks once more before it writes the next
row of a manifest, and stops where another process has taken over. A row that it was just writing to a store comes before the rows of the
new holder (`manifest.py`). Clocks count from the machine's start, sleep included; clocks of two machines are never compared.

The lease is a compare-and-swap file: it is written only where its content is still the one that the writer has read. In a local folder a
lock, held only during the write, ensures that; S3 does it itself (`If-None-Match`, `If-Match`). Other stores can't: there the writer waits
and reads the file back, and two writers that are further apart than this wait can both succeed.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from corpusmill.pipeline.config import parse_json, seconds_of
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.interrupts import interrupt_main
from corpusmill.pipeline.storage import TEMPORARY, Storage, fsync_folder

LEASE = "lease.json"
#: The file whose lock guards the writes of a local folder.
GUARD_FILE = ".lock"
#: Seconds that a request to a store, or a lock, may take.
PATIENCE = 10.0
#: Seconds after which a lease that was not renewed can be taken over, the variable that changes them, and its limits.
TTL, TTL_VARIABLE, SHORTEST, LONGEST = 30.0, "CORPUSMILL_LEASE_SECONDS", 1.0, 3600.0
#: Renewals in a ttl. The part of a ttl without a renewal after which `check` renews the lease; the rest is left for writing the row.
RENEWALS, FENCE = 3, 0.9
#: States of a process (/proc/PID/stat) in which it does not work. SUSPENDED: stopped by a signal or a debugger, or waiting for a disk or a
#: server. GONE: dead.
SUSPENDED, GONE = ("T", "t", "D"), ("Z", "X")


class LeaseLost(CorpusmillError):
    """The lease is lost: another process has taken over the run, or the lease can't be renewed."""


@dataclass(frozen=True)
class LeaseHolder:
    """The content of `lease.json`. `holder` is a random id, empty where nobody holds the lease. `machine` distinguishes machines (and
    containers) of the same name. `started` is the start of the process in the kernel's ticks: a later process with the same number
    differs in it. `beat` counts the renewals."""

    holder: str
    host: str
    machine: str
    pid: int
    started: int
    beat: int
    ttl: float

    def content(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def here(self) -> bool:
        return self.machine == this_machine()

    @property
    def words(self) -> str:
        return f"{self.host}, process {self.pid}"

    def process_state(self) -> str:
        """Returns the kernel's letter for the state of the holder's process, which is on this machine; `X` where it is gone."""
        started, state = process(self.pid)
        return state if started == self.started else "X"


def read_holder(content: bytes) -> LeaseHolder | None:
    """Returns the holder that a lease names; None if the lease is damaged."""
    try:
        fields = parse_json(content)
        kinds: dict[str, Any] = {"holder": str, "host": str, "machine": str, "pid": int, "started": int, "beat": int, "ttl": (int, float)}
        if any(not isinstance(fields[name], kind) for name, kind in kinds.items()):
            return None
        return LeaseHolder(**{name: fields[name] for name in kinds} | {"ttl": min(max(float(fields["ttl"]), SHORTEST), LONGEST)})
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def clock() -> float:
    """Returns seconds since the machine's start. They go on while it sleeps, and do not jump when its time is set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def this_machine() -> str:
    """Returns an id of this machine (or container): that of its boot, and that of the namespace of its processes."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def process(pid: int) -> tuple[int, str]:
    """Returns the start of a process of this machine (ticks), and its state; 0 and `X` where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19]), fields[0]
    except (OSError, ValueError, IndexError):
        with contextlib.suppress(OSError):
            if not Path("/proc/self/stat").exists():  # no Linux: only the number can be checked
                os.kill(pid, 0)
                return 0, "R"
        return 0, "X"


class SwapFile:
    """A compare-and-swap file in a run's folder: it is written only where it still has the version that the writer has read.

    The version is the store's tag; on a disk it is the sha256 of the content. A `durable` file is on the disk when `write` returns.
    """

    def __init__(self, storage: Storage, name: str, durable: bool = False):
        self.storage, self.name, self.durable = storage, name, durable

    def read(self) -> tuple[bytes, str] | None:
        """Returns the content and its version; None if there is no such file. Raises OSError if it can't be read."""
        with contextlib.suppress(FileNotFoundError):
            if self.storage.remote:  # the version first: where the content is a newer one, the next write fails and nothing is lost
                tag = self.storage.store.tag(self.name, PATIENCE)
                return self.storage.read_bytes(self.name), tag
            content = self.storage.read_bytes(self.name)
            return content, _version(content)
        return None

    def write(self, content: bytes, expected: str | None) -> str | None:
        """Writes the file where its version is `expected` (None: there is no file). Returns the new version; None: not written."""
        if self.storage.remote:
            return self.storage.store.write_if(self.name, content, expected, PATIENCE)
        if expected is not None and not Path(self.storage.root).is_dir():
            return None  # the folder was moved; a new one of its name would be a stub
        with self._locked():
            return self._replace(content) if self._is(expected) else None

    def _is(self, expected: str | None) -> bool:
        found = self.read()
        return (found and found[1]) == expected

    def _replace(self, content: bytes) -> str:
        path = Path(self.storage.path(self.name))
        temporary = path.with_name(TEMPORARY + path.name)  # a fixed name: the next writer replaces the file that a kill leaves
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
            if self.durable:
                fsync_folder(path.parent)
        except OSError:  # a full disk
            temporary.unlink(missing_ok=True)
            raise
        return _version(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds the folder's lock during the block. Raises TimeoutError if another process (a stopped one) keeps it for PATIENCE."""
        os.makedirs(self.storage.root, exist_ok=True)
        end = time.monotonic() + PATIENCE
        with open(self.storage.path(GUARD_FILE), "w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise TimeoutError(errno.ETIMEDOUT, f"for {PATIENCE:.0f} s another process has held {file.name}") from None
                    time.sleep(0.01)
            yield


def _version(content: bytes) -> str:
    return sha256(content).hexdigest()


class Lease:
    """The lease of one run. `acquire` takes it, or raises; `check` raises where it is lost; `release` gives it back."""

    def __init__(self, storage: Storage, ttl: float | None = None):
        self.storage, self.file = storage, SwapFile(storage, LEASE)
        self.mine = LeaseHolder(
            secrets.token_hex(8),
            platform.node(),
            this_machine(),
            os.getpid(),
            process(os.getpid())[0],
            0,
            ttl or seconds_of(TTL_VARIABLE, TTL, SHORTEST, LONGEST),
        )
        self.before: LeaseHolder | None = None  # the former holder, where the lease was taken over
        self.lost: str | None = None  # why the lease is lost
        self._version: str | None = None
        self._renewed = 0.0
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._to_interrupt = False

    # ---- begin and end --------------------------------------------------------------------------------

    def acquire(self, on_message: Callable[[str], None] = lambda _: None) -> None:
        """Takes the lease. Raises InputError if another process works on the run. Calls `on_message` where finding that out takes a
        while."""
        try:
            version = self._free(on_message)
            self._renewed = clock()
            self._version = self.file.write(self.mine.content(), version)
            if self._version is None:
                found = self.file.read()
                raise self._refusal(read_holder(found[0]) if found else None)
        except CorpusmillError:
            raise
        except OSError as error:
            raise InputError(f"{self.storage.root}: the run's folder can't be written ({error.strerror or error}).") from error
        self._to_interrupt = threading.current_thread() is threading.main_thread()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def release(self) -> None:
        """Writes that nobody holds the lease, unless it is lost to another process."""
        self._ended.set()
        with self._mutex, contextlib.suppress(Exception):
            if self.lost is None:
                self.file.write(replace(self.mine, holder="").content(), self._version)

    def _free(self, on_message: Callable[[str], None]) -> str | None:
        """Returns the version that may be overwritten; None if there is no lease. Raises InputError if another process works."""
        found = self.file.read()
        if found is None:
            return None
        held = read_holder(found[0])
        if held is not None and not held.holder:
            return found[1]
        state = held.process_state() if held is not None and held.here else None
        if state is None or state in SUSPENDED:
            self._watch(held, found[1], on_message)
        elif state not in GONE:
            raise self._refusal(held)
        self.before = held
        return found[1]

    def _watch(self, held: LeaseHolder | None, version: str, on_message: Callable[[str], None]) -> None:
        """Waits for the ttl of the lease. Raises InputError as soon as another process has renewed it."""
        ttl = held.ttl if held else TTL
        who = held.words if held else "another process"
        on_message(f"{self.storage.root}: {who} holds this folder; if it shows no activity for {ttl:.0f} s, this command goes on.")
        end = clock() + ttl
        while (left := end - clock()) > 0:
            time.sleep(min(left, ttl / 20))
            found = self.file.read()
            if found is None or found[1] != version:
                raise self._refusal(read_holder(found[0]) if found else held)

    def _refusal(self, held: LeaseHolder | None) -> InputError:
        who = f" ({held.words})" if held and held.holder else ""
        return InputError(f"{self.storage.root}: another corpusmill is working in this run right now{who}; wait until it ends.")

    # ---- in between -----------------------------------------------------------------------------------

    def check(self, certain: bool = False) -> None:
        """Raises LeaseLost if another process has the lease, or if its renewal is due and fails. Called before each row of a
        manifest. `certain`: renews the lease even where that is not due."""
        if self.lost is None and (certain or clock() - self._renewed > FENCE * self.mine.ttl):
            with self._mutex:
                try:
                    self._renew()
                except Exception as error:  # noqa: BLE001 - for any reason, the lease was not renewed
                    self.lost = f"its lease can't be renewed ({error})"
        if self.lost is not None:
            raise LeaseLost(f"{self.storage.root}: {self.lost}; this process stops, and what it has finished stays.")

    def _keep(self) -> None:
        while not self._ended.wait(self.mine.ttl / RENEWALS):
            with self._mutex, contextlib.suppress(Exception):  # the next renewal, or `check`, comes in time
                if not self._ended.is_set():
                    self._renew()
            if self.lost is not None:
                if self._to_interrupt and not self._ended.is_set():
                    interrupt_main()  # ends even a long training; `holding` reports the reason
                return

    def _renew(self) -> None:
        started, beaten = clock(), replace(self.mine, beat=self.mine.beat + 1)
        version = self.file.write(beaten.content(), self._version)
        if version is None and not self.storage.remote and not Path(self.storage.root).is_dir():
            self.lost = "its folder was moved or removed"
        elif version is None:
            found = self.file.read()
            held = read_holder(found[0]) if found else None
            self.lost = f"another corpusmill has taken this run over ({held.words})" if held else "its lease was removed"
        else:
            self.mine, self._version, self._renewed = beaten, version, started


@contextmanager
def holding(storage: Storage, on_message: Callable[[str], None] = lambda _: None, ttl: float | None = None) -> Iterator[Lease]:
    """Holds the lease of the run during the block. Raises InputError if another process works on the run."""
    lease = Lease(storage, ttl)
    lease.acquire(on_message)
    try:
        storage.sweep()
        yield lease
    except BaseException as error:
        if lease.lost is not None and not isinstance(error, LeaseLost):
            lease.check()  # raises LeaseLost with the reason
        raise
    finally:
        lease.release()


def check_holder(storage: Storage, holder: str) -> None:
    """Raises LeaseLost if the holder of the run no longer has this id, and OSError if the lease can't be read. For the holder's
    worker processes, which may survive it. Does nothing for an empty id (a run without a lease)."""
    if not holder:
        return
    found = SwapFile(storage, LEASE).read()
    held = read_holder(found[0]) if found else None
    if held is None or held.holder != holder:
        now = (
            f"another corpusmill has taken this run over ({held.words})"
            if held and held.holder
            else "the process that worked on it has ended"
        )
        raise LeaseLost(f"{storage.root}: {now}; what this process has begun is not written.")


def look(storage: Storage) -> dict[str, Any]:
    """Returns the state of the lease from one reading, without waiting or writing: `state` (`held`, `free`, `expired`, `unknown`), `host`,
    `process`, and `seconds` since it was renewed (by the time of its file; None if a store gives none)."""
    status: dict[str, Any] = {"state": "unknown", "host": None, "process": None, "seconds": None}
    try:
        found = SwapFile(storage, LEASE).read()
        written = storage.times().get(LEASE)
    except (OSError, CorpusmillError):
        return status
    if found is None or (held := read_holder(found[0])) is None:
        return status
    age = None if written is None else max(0.0, time.time() - written)
    status |= {"host": held.host, "process": held.pid, "seconds": age and round(age, 1)}
    if not held.holder:
        return {**status, "state": "free"}
    if held.here and (state := held.process_state()) not in SUSPENDED:
        return {**status, "state": "free" if state in GONE else "held"}
    return status if age is None else {**status, "state": "held" if age <= held.ttl else "expired"}
