"""Reports known weaknesses of the installed dependencies, and secrets in the tracked files: `make audit`.

    python .ci/audit.py [--write-baseline]

Dependencies are looked up with pip-audit in PyPI's advisories or OSV's, whichever can be reached. Where neither can, the program prints so
and does not fail. Weaknesses that can't be mended yet are listed in audit.yaml, with a reason and a day on which to look at it again.
Secrets are looked for with detect-secrets; made-up keys of tests, which only look like secrets, are listed in secrets.json, by hash.
"""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ACCEPTED, BASELINE = HERE / "audit.yaml", HERE / "secrets.json"
#: For each service a package version with a known weakness, requested to see whether the service answers: `name`, then the request.
SERVICES: dict[str, tuple[str, bytes | None]] = {
    "pypi": ("https://pypi.org/pypi/jinja2/3.1.0/json", None),
    "osv": ("https://api.osv.dev/v1/query", b'{"version": "3.1.0", "package": {"name": "jinja2", "ecosystem": "PyPI"}}'),
}
ANSWER_SECONDS, AUDIT_SECONDS = 5, 60
#: Words in errors of pip-audit and its libraries for a service that can't be reached or does not answer; no line of code contains them.
NETWORK = re.compile(
    r"^\S.*(timed out|Timeout\b|Connection(Error| refused| reset| aborted)|Max retries exceeded|Could not connect|\b(429|5\d\d) \w+ Error)",
    re.MULTILINE,
)
PARTS = 16
#: Not used: entropy would report each sha256 that pins a download, and an address is no secret.
LEFT_OUT = ("Base64HighEntropyString", "HexHighEntropyString", "IPPublicDetector")


def service() -> str | None:
    """Returns the first advisory service that answers and knows the weakness in its request."""
    for name, (url, body) in SERVICES.items():
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=ANSWER_SECONDS) as answer:
                advisories = json.loads(answer.read(1 << 22))
            if advisories.get("vulnerabilities") or advisories.get("vulns"):
                return name
        except (OSError, ValueError):
            continue
    return None


def weaknesses(found: Mapping[str, Any], accepted: Iterable[Mapping[str, Any]], today: date) -> list[str]:
    """Returns a sentence for each weakness in pip-audit's JSON that is not accepted, or whose acceptance has expired."""
    until = {(entry["package"], entry["id"]): entry["until"] for entry in accepted}
    problems = []
    for package in found["dependencies"]:
        for weakness in package.get("vulns", ()):
            day = next(
                (until[package["name"], name] for name in (weakness["id"], *weakness["aliases"]) if (package["name"], name) in until), None
            )
            if day is None or day < today:
                fixed = ", ".join(weakness["fix_versions"]) or "no version"
                late = "" if day is None else f" (accepted until {day} only)"
                problems.append(f"{package['name']} {package['version']}: {weakness['id']}, mended in {fixed}{late}")
    return problems


def audit_dependencies() -> list[str]:
    name = service()
    if name is None:
        print("Neither PyPI's nor OSV's advisories can be reached, so dependencies are not audited.")
        return []
    options = ["--vulnerability-service", name, "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    try:
        found = answer([sys.executable, "-m", "pip_audit", *options])
    except RuntimeError as error:
        return [str(error)]
    if found is None:
        print(f"The advisories of {name} stopped answering, so dependencies are not audited.")
        return []
    problems = weaknesses(found, yaml.safe_load(ACCEPTED.read_text()) or [], date.today())
    print(f"{len(found['dependencies'])} packages looked up in the advisories of {name}: {len(problems)} weaknesses that are not accepted.")
    return problems


def answer(command: list[str], seconds: float = AUDIT_SECONDS) -> dict[str, Any] | None:
    """Returns the output of pip-audit's `command` at exit code 0 (no weakness) or 1; None if the network fails.

    Raises RuntimeError for any other failure: then nothing has been audited.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode in (0, 1):
        with contextlib.suppress(ValueError):
            return dict(json.loads(done.stdout))
        if NETWORK.search(done.stderr):
            return None
    last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    raise RuntimeError(f"pip-audit does not work (exit code {done.returncode}): {last}")


def settings() -> dict[str, Any]:
    """Returns detect-secrets' plugins and its default filters, but only filters on form and none that use the network."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    names = sorted({kind.__name__ for kind in get_mapping_from_secret_type_to_class().values()} - set(LEFT_OUT))
    filters = (
        "allowlist.is_line_allowlisted",
        "heuristic.is_sequential_string",
        "heuristic.is_templated_secret",
        "heuristic.is_indirect_reference",
    )
    return {
        "plugins_used": [{"name": name} for name in names],
        "filters_used": [{"path": f"detect_secrets.filters.{name}"} for name in filters],
    }


def secrets(paths: list[str]) -> dict[str, set[str]]:
    """Returns hashes of what looks like a secret, by file. Several processes share the files, since the patterns take half a minute."""
    with ProcessPoolExecutor() as pool:
        found = pool.map(_secrets_of, [paths[start::PARTS] for start in range(PARTS)])
        return {path: hashes for part in found for path, hashes in part.items()}


def _secrets_of(paths: list[str]) -> dict[str, set[str]]:
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import transient_settings

    found: dict[str, set[str]] = {}
    with transient_settings(settings()):
        for path in paths:
            collection = SecretsCollection()
            collection.scan_file(path)
            if hashes := {secret.secret_hash for _, secret in collection}:
                found[path] = hashes
    return found


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    return [
        path for path in listed.split("\0") if path and Path(path).is_file() and not Path(path).is_symlink() and path != ".ci/secrets.json"
    ]


def audit_secrets(write: bool) -> list[str]:
    paths = tracked()
    found = secrets(paths)
    if write:
        BASELINE.write_text(json.dumps({path: sorted(hashes) for path, hashes in sorted(found.items())}, indent=1) + "\n")
    known = {path: set(hashes) for path, hashes in json.loads(BASELINE.read_text()).items()}
    new = sorted(path for path, hashes in found.items() if hashes - known.get(path, set()))
    print(f"{len(paths)} tracked files looked through for secrets: {len(new)} with one that is not known to be made up.")
    return [f"{path}: holds what looks like a secret; if it is made up: python .ci/audit.py --write-baseline" for path in new]


def main() -> int:
    faults = [*audit_secrets("--write-baseline" in sys.argv[1:]), *audit_dependencies()]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
