"""Provides a headless Chromium where none is installed, from an npm package with its libraries, unpacked in the user's cache.

It needs only the C library of the system and no privileges: for continuous integration in bare containers.
"""

import io
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import brotli

from corpusmill.pipeline.cache import NpmPackage, cache_folder, locked
from corpusmill.pipeline.errors import InputError

PACKAGE = NpmPackage(
    "@sparticuz/chromium", "153.0.0", "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0", "install Chromium"
)  # fmt: skip
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>{folder}</dir><dir>/usr/share/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>"""
#: The package is built for this machine type only.
POSSIBLE = sys.platform == "linux" and platform.machine() == "x86_64"


@lru_cache
def npm_chromium() -> tuple[Path, dict[str, str]]:
    """Returns the program, and the variables to add to this process's environment. The first call on a machine fetches and unpacks 70 MB.

    Raises InputError in one sentence where it can't be had.
    """
    folder = cache_folder() / f"chromium-{PACKAGE.version}"
    if not folder.exists():
        _reachable()
        with locked(folder):
            if not folder.exists():
                _unpack(folder)
    return folder / "chromium", {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_PATH": str(folder)}


def _reachable() -> None:
    """Raises InputError at once where no registry answers; npm itself would try for more than a minute."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"{PACKAGE}: the program npm, which fetches it, is not here; {PACKAGE.how}.")
    address = urlsplit(subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False).stdout.strip())
    try:
        socket.create_connection((address.hostname or "", address.port or (80 if address.scheme == "http" else 443)), timeout=3).close()
    except OSError as error:
        raise InputError(f"{PACKAGE}: {address.hostname} can't be reached ({error}); {PACKAGE.how}.") from error


def _unpack(folder: Path) -> None:
    files = PACKAGE.files(r"bin/.*\.br")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        for path, packed in files.items():
            content = brotli.decompress(packed)
            if path.endswith(".tar.br"):
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(whole, filter="data")
            else:
                (whole / "chromium").write_bytes(content)
                (whole / "chromium").chmod(0o755)
        (whole / "fonts.conf").write_text(FONTS.format(folder=folder / "fonts"))
        whole.rename(folder)
