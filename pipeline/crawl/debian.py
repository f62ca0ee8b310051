"""Documentation that a Debian or Ubuntu registry ships: downloaded, unpacked without installing, served and crawled."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from corpusmill.pipeline.crawl.crawler import Bounds, Site, crawl
from corpusmill.pipeline.crawl.server import serve

LANGUAGES = ("en", "de", "es", "fr", "it", "ja", "zh-cn")
#: Host name, folder below usr/share/doc, paths to begin with, and packages. The two guides are natural near-duplicates.
SITES = (
    ("anarchist-faq.test", "anarchism/html", ("/",), ("anarchism",)),
    (
        "sysadmin-reference.test",
        "debian-reference-common/docs",
        tuple(f"/index.{language}.html" for language in LANGUAGES),
        ("debian-reference-common", *(f"debian-reference-{language}" for language in LANGUAGES)),
    ),
    ("install-amd64.test", "installation-guide-amd64", ("/en/", "/de/", "/es/", "/fr/"), ("installation-guide-amd64",)),
    ("install-arm64.test", "installation-guide-arm64", ("/en/",), ("installation-guide-arm64",)),
)
#: Seconds that apt may take in all for one of its commands.
APT_SECONDS = 150
APT = ("-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=5", "-o", "Acquire::https::Timeout=5", "-o", "APT::Sandbox::User=")


def fetch(folder: Path, bounds: Bounds) -> str:
    """Crawls the packages that can be had into `folder`; says in a phrase what it is. Raises OSError where there are none."""
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise OSError(f"{tool} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="corpusmill-packages-") as temporary:
        root = Path(temporary)
        packages = download([name for *_, names in SITES for name in names], root)
        for package in packages:
            subprocess.run(["dpkg-deb", "-x", str(package), str(root / "unpacked")], check=True, capture_output=True)
        doc = root / "unpacked" / "usr" / "share" / "doc"
        folders = {host: doc / place for host, place, _, _ in SITES if (doc / place).is_dir()}
        sites = [Site(host, starts) for host, _, starts, _ in SITES if host in folders]
        with serve(folders) as port:
            counts = crawl(sites, port, folder, bounds)
    if not counts:
        raise OSError("the packages hold no pages")
    return f"{sum(counts.values()):,} pages of {len(packages)} documentation packages of this system's registry, crawled on this machine"


def download(names: list[str], root: Path) -> list[Path]:
    """Downloads the packages that the registry has, with lists of our own where the system has none yet."""
    into = root / "packages"
    into.mkdir()
    available = listed(names, [])
    own: list[str] = []
    if not available:
        own = own_lists(root)
        apt(["update", *own], into)
        available = listed(names, own)
    if not available:
        raise OSError("the package registry has none of the documentation packages")
    apt(["download", *own, *available], into)
    return sorted(into.glob("*.deb"))


def listed(names: list[str], options: list[str]) -> list[str]:
    """Those of the packages that apt knows where to get."""
    result = subprocess.run(["apt-cache", *options, "policy", *names], capture_output=True, text=True, timeout=APT_SECONDS, check=False)
    known, name = set(), ""
    for line in result.stdout.splitlines():
        if line and not line[0].isspace():
            name = line.rstrip(":")
        elif "Candidate:" in line and "(none)" not in line:
            known.add(name)
    return [name for name in names if name in known]


def own_lists(root: Path) -> list[str]:
    """Options that keep apt's lists below `root`: nothing of the system changes, and nobody needs to be root."""
    for name in ("lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    return ["-o", f"Dir::State::Lists={root}/lists", "-o", f"Dir::Cache={root}/cache"]


def apt(command: list[str], folder: Path) -> None:
    try:
        result = subprocess.run(
            ["apt-get", *APT, *command], cwd=folder, capture_output=True, text=True, timeout=APT_SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise OSError(f"apt-get {command[0]} took more than {APT_SECONDS} seconds") from error
    if result.returncode:
        told = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        raise OSError(f"apt-get {command[0]} failed ({(told or ['E: no reason given'])[0][2:].strip()})")
