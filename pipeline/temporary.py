"""Files in the temporary folder of this machine."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.failures import FULL


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """What is written to the temporary folder within: where it has no room, that is a matter of the task that needs it. The system's error
    is not passed on as its cause: a full folder of the run would end the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*FULL, errno.EFBIG):
            raise
        raise CorpusmillError(
            f"{tempfile.gettempdir()}: no room for {what} ({error.strerror}); set TMPDIR to a folder with more room."
        ) from None
