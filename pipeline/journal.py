"""Lines that are only ever appended to a file, and are read again by where they begin.

A line is durable when `append` returns. In a `grouped` block lines that come close together share one fsync, which a thread does while the
next ones come: at most GROUP_SECONDS pass until it begins. A line that was appended outlives a killed process in any case; without the
fsync it may not outlive a machine that loses power. On object stores lines lie in objects (`journal_store.py`).
"""

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import fsync_folder

#: How long a line may wait for others that are made durable with it, in seconds.
GROUP_SECONDS = 0.05
#: Bytes that are read at first where a line's length isn't known.
LINE_BYTES = 4096


class Check(Protocol):
    def __call__(self, certain: bool = False) -> None:
        """Raises where this process may no longer write; `certain`: not by what it knows, but by asking."""


class Journal(ABC):
    """What files and stores share: when lines are made durable. Subclasses say how."""

    def __init__(self) -> None:
        self._group: Group | None = None
        self.guard: Check | None = None  # asked before anything is written

    @property
    @abstractmethod
    def place(self) -> int:
        """Where the next line goes: a byte of the file, or in a store the number of the line."""

    @abstractmethod
    def lines(self) -> Iterator[tuple[int, str, bytes]]:
        """All whole lines, once and before anything else: address, where a person finds it (`manifest.jsonl:3`), content."""

    @abstractmethod
    def read(self, address: int) -> bytes:
        """The line at an address."""

    @abstractmethod
    def _add(self, line: bytes) -> int:
        """Takes a line and returns its address."""

    @abstractmethod
    def sync(self) -> None:
        """Makes durable what has been added. Threads may call it."""

    def tidy(self) -> None:  # noqa: B027 - a file is as quick to open as it gets
        """Makes it quicker to open; the lines stay as they are."""

    def append(self, line: bytes) -> int:
        """Adds a line (with its end) and returns its address. Raises InputError where it can't be written."""
        self._may_write()
        address = self._add(line)
        if self._group is None:
            self.sync()
        else:
            self._group.ask()
        return address

    def _may_write(self) -> None:
        if self.guard is not None:
            self.guard()

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """A block in which lines become durable together; all of them are when it ends."""
        if self._group is not None:
            yield
            return
        self._group = Group(self.sync, GROUP_SECONDS)
        try:
            yield
        finally:
            group, self._group = self._group, None
            group.close()


class Group:
    """Performs `action` in a thread within `seconds` after it was asked for, once for all that asked meanwhile.

    What the action raises comes out of the next call.
    """

    def __init__(self, action: Callable[[], None], seconds: float):
        self.action, self.seconds = action, seconds
        self._changed = threading.Condition()
        self._asked = self._closed = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        with self._changed:
            self._raise()
            if not self._asked:
                self._asked = True
                self._changed.notify()

    def close(self) -> None:
        """Performs what was asked for and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while self._error is None:
            with self._changed:
                self._changed.wait_for(lambda: self._asked or self._closed)
                if self._asked:
                    self._changed.wait_for(lambda: self._closed, self.seconds)
                elif self._closed:
                    return
                self._asked = False  # whoever asks from here on is not sure to be part of this turn
            try:
                self.action()
            except Exception as error:  # noqa: BLE001 - raised where the next line is appended
                self._error = error


class FileJournal(Journal):
    """Lines in a local file. Half a line at its end, which a crash cut, is removed; `read_only` leaves it: it may be being written."""

    def __init__(self, path: str, read_only: bool = False):
        super().__init__()
        self.path, self.read_only = path, read_only
        self._end = 0  # bytes of whole lines
        self._reading: int | None = None
        self._writing: int | None = None
        self._unsynced = False

    @property
    def place(self) -> int:
        return self._end

    def lines(self) -> Iterator[tuple[int, str, bytes]]:
        if not os.path.exists(self.path):
            return
        size = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                size += len(line)
                if line.endswith(b"\n"):
                    address, self._end = self._end, size
                    yield address, f"{self.path}:{number}", line
        if size > self._end and not self.read_only:
            os.truncate(self.path, self._end)

    def read(self, address: int) -> bytes:
        if self._reading is None:
            self._reading = self._open(os.O_RDONLY)
        length = LINE_BYTES
        while True:
            found = os.pread(self._reading, length, address)
            end = found.find(b"\n") + 1
            if end or len(found) < length:
                return found[:end]
            length *= 8

    def _add(self, line: bytes) -> int:
        try:
            if self._writing is None:
                self._writing = self._create()
            written = os.write(self._writing, line)
            while written < len(line):
                written += os.write(self._writing, line[written:])
        except OSError as error:
            self._take_back()
            raise InputError(f"{self.path}: can't be written ({error.strerror}).") from error
        self._end = os.lseek(self._writing, 0, os.SEEK_CUR)  # behind whatever another's process wrote as it lost the run
        self._unsynced = True
        return self._end - len(line)

    def sync(self) -> None:
        if self._unsynced and self._writing is not None:
            self._unsynced = False  # before: what is added meanwhile asks again
            try:
                os.fsync(self._writing)
            except OSError as error:
                raise InputError(f"{self.path}: can't be written ({error.strerror}).") from error

    def _create(self) -> int:
        folder = Path(self.path).parent
        folder.mkdir(parents=True, exist_ok=True)
        new = not os.path.exists(self.path)
        descriptor = self._open(os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if new:
            fsync_folder(folder)
        return descriptor

    def _take_back(self) -> None:
        """Removes the half of a line that a full disk let through, so that whatever comes next is a line of its own."""
        if self._writing is not None:
            os.ftruncate(self._writing, self._end)

    def _open(self, flags: int) -> int:
        descriptor = os.open(self.path, flags | os.O_CLOEXEC, 0o666)
        weakref.finalize(self, os.close, descriptor)
        return descriptor
