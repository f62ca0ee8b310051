"""Tests the package's sources for unsafe code: code or shell commands from data, pickles, archives unpacked to their own paths, JSON that
is not read by `parse_json`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "pipeline",
    "text",
    "ingest",
    "filters",
    "dedup",
    "tokenize",
    "train",
    "report",
    "ablate",
    "src/corpusmill/cli",
    "src/corpusmill/__init__.py",
    "src/corpusmill/__main__.py",
)
#: Calls that are allowed in one place alone, and the reason.
ALLOWED = {
    ("pipeline/config.py", "json.loads"): "the one reader of JSON (parse_json), which never ends in a RecursionError",
    ("filters/classifier/corpora.py", "json.loads"): "packages that are checked by their sha256, and files made from them",
    ("filters/own.py", "exec"): "the user's own step, which a recipe names: a recipe is a program (SECURITY.md)",
    ("pipeline/kernel.py", "pickle"): "names the error of a damaged entry of numba's cache, which numba itself reads and writes",
    (
        "pipeline/shipped_kernels.py",
        "extractall",
    ): "the wheel's own archive, part of the program as its modules are",
    ("tokenize/export/flat_files.py", "pickle"): "writes the meta.pkl that nanoGPT's programs look for; reads none",
    ("tokenize/export/flat_files.py", "pickle.dumps"): "writes the meta.pkl that nanoGPT's programs look for; reads none",
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "pty"}
CALLS = {
    "eval",
    "exec",
    "__import__",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "os.spawnv",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "json.load",
    "json.loads",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.load_all",
    "torch.load",
    "torch.hub.load",
    "tempfile.mktemp",
    "shutil.unpack_archive",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve",
    "pandas.read_pickle",
    "pd.read_pickle",
}
METHODS = {"extractall", "read_pickle", "to_pickle"}
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False, "verify": False}


def unsafe(source: str) -> Iterator[str]:
    """Yields the unsafe calls of a module's source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([node.module] if node.module.split(".")[0] in MODULES else [])
            yield from (f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in CALLS)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name.split(".")[0] in MODULES:
                yield name
            elif isinstance(node.func, ast.Attribute) and (node.func.attr in METHODS or name == "archive.extract"):
                yield node.func.attr
            yield from (
                f"{word.arg}={value}"
                for word in node.keywords
                if word.arg in KEYWORDS
                for value in [getattr(word.value, "value", None)]
                if value is KEYWORDS[word.arg]
            )


def modules() -> list[Path]:
    found = [path for room in ROOMS for path in ((ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / room])]
    assert len(found) > 200
    return found


def test_the_package_does_none_of_it() -> None:
    found = {(path.relative_to(ROOT).as_posix(), what) for path in modules() for what in unsafe(path.read_text())}
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set(), "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "exec(x)",
        "import os\nos.system('ls')",
        "subprocess.run(x, shell=True)",
        "import yaml\nyaml.load(x)",
        "json.loads(x, strict=False)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "tarfile.open(x).extractall('.')",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "from urllib.request import urlopen",
        "requests.get(x, verify=False)",
    ],
)
def test_it_would_be_seen(source: str) -> None:
    assert list(unsafe(source))


def test_what_security_md_names_is_there() -> None:
    quoted = re.findall(r"`([\w./{},]+\.py)`|`([\w./]+\{[\w,]+\}\.py)`", (ROOT / "SECURITY.md").read_text())
    paths = {path for pair in quoted for path in braces("".join(pair))}
    known = [f"/{path.relative_to(ROOT)}" for folder in (*ROOMS[:8], "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 20
    assert not {path for path in paths if not any(name.endswith(f"/{path}") for name in known)}


def braces(path: str) -> list[str]:
    """Expands `a/{b,c}.py` to two paths, as a shell does."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
    return [f"{found[1]}{part}{found[3]}" for part in found[2].split(",")] if found else [path]


def test_every_exception_to_a_rule_of_safety_says_why() -> None:
    """Every `noqa: S...` in the package has its reason next to it."""
    lines = [line for path in modules() for line in path.read_text().splitlines() if "noqa: S" in line and ", S1" not in line]
    assert all(re.search(r"noqa: S\d+(, \w+)* - \w+", line) for line in lines if re.search(r"noqa: S\d", line))
    assert any("S102" in line for line in lines)
