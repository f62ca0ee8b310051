"""The command line, the only package that imports all others. Libraries are imported where a command needs them."""

import atexit
import errno
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from corpusmill.cli.base import app
from corpusmill.pipeline.errors import ClusterLost, CorpusmillError, InputError
from corpusmill.pipeline.extras import EXTRAS, sentence
from corpusmill.pipeline.interrupts import exit_code_of, of_an_interrupt, raise_terminated

#: The modules with commands, in the order of `corpusmill --help`.
COMMANDS = ("run", "ablate", "look", "query", "takedown", "warm", "tokens", "model", "export", "labels", "classifier", "version")
for _commands in COMMANDS:
    import_module(f"corpusmill.cli.{_commands}")

#: The exit codes of Ctrl-C and SIGTERM. A command that can be resumed has a message of its own (run.Interrupted).
INTERRUPTIONS = (130, 143)

#: Commands that only print, perhaps without end. All others go on where nobody reads on, as in `corpusmill takedown ... | head`.
PRINTING = ("status", "inspect", "sample", "clusters", "query", "raw", "generate", "chat")


class _Unread(io.FileIO):
    """A standard stream that drops what is written after its reader has gone."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(content)


def _go_on_unread() -> None:
    for name in ("stdout", "stderr"):
        if (old := getattr(sys, name)) is getattr(sys, f"__{name}__") and old is not None:  # not one that a caller has put there
            raw = io.BufferedWriter(_Unread(old.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(raw, old.encoding, old.errors, line_buffering=old.line_buffering))


def _fail(message: str, code: int, hard: bool = False) -> None:
    from corpusmill.pipeline.redact import without_secrets
    from corpusmill.pipeline.safe import safe_text

    print(f"corpusmill: {safe_text(without_secrets(message))}", file=sys.stderr)  # it may hold a name from a crawl
    _exit(code, hard)


#: The exit code of a command that was interrupted, or whose cluster is gone.
_interrupted: list[int] = []


def _exit(code: int, hard: bool = False) -> None:
    if hard or code in INTERRUPTIONS:
        _interrupted.append(code)
    sys.exit(code)


def _end() -> None:
    """Runs after all other functions at exit. An interrupted command ends here, without destructors: those of Ray's driver crash now and
    then where an interrupt has come while it worked, and a shell would see a crash in place of Ctrl-C. Where its cluster is gone, they
    wait for it."""
    if _interrupted:
        with suppress(OSError):  # a closed pipe
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(_interrupted[0])
    gc.freeze()


def _fail_interrupted(error: BaseException) -> None:
    _fail("interrupted.", exit_code_of(error))


def main() -> None:
    """Runs the command `corpusmill`. Under torchrun the first process runs it, and the others take part in its trainings."""
    # Libraries make many objects that stay. Collecting garbage among them at Python's pace, and once more at the end of the process, takes
    # about a second a command.
    gc.set_threshold(10_000, 10, 10)
    atexit.register(_end)  # what is registered first runs last
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        _command()
        return
    from corpusmill.train.launch import run_command

    run_command(_command)


def _command() -> None:
    """Runs the command of `sys.argv`. An error that a user can cause ends in one sentence and an exit code, never in a trace."""
    signal.signal(signal.SIGTERM, raise_terminated)
    if not set(sys.argv[1:2]) & set(PRINTING):
        _go_on_unread()
    try:
        app(prog_name="corpusmill")
    except CorpusmillError as error:
        hard = isinstance(error, ClusterLost)
        if error.said:
            _exit(error.exit_code, hard)
        _fail(str(error), error.exit_code, hard)
    except KeyboardInterrupt as error:
        _fail_interrupted(error)
    except SystemExit as end:  # typer turns Ctrl-C and a closed pipe into this
        if end.code == 130:  # Ctrl-C
            _fail_interrupted(end)
        if isinstance(end.__context__, BrokenPipeError):  # `corpusmill generate ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        raise
    except MemoryError:
        _fail("out of memory; use fewer workers, or smaller tasks (ingest.task_mb).", 1)
    except Exception as error:  # any other error is a bug
        if of_an_interrupt(error):
            _fail_interrupted(error)
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            _fail(sentence(error.name), InputError.exit_code)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _fail(f"{error.filename or 'the output'}: no space left.", 1)
        if os.environ.get("CORPUSMILL_DEBUG"):
            raise
        _fail(f"internal error ({type(error).__name__}: {error}); set CORPUSMILL_DEBUG=1 to see where.", 1)
