"""What no module of the package does, seen in its source: code or shells out of data, pickles, archives unpacked where they want."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "pipeline",
    "filters",
    "dedup",
    "tokenize",
    "train",
    "src/corpusmill/cli",
    "src/corpusmill/__init__.py",
    "src/corpusmill/__main__.py",
)
#: What is done in one place alone, and why.
ALLOWED = {
    ("filters/python_step.py", "exec"): "the user's own step, which a recipe names: a recipe is a program (SECURITY.md)",
    ("tokenize/export/nanogpt.py", "pickle"): "writes the meta.pkl that nanoGPT's programs look for; reads none",
    ("tokenize/export/nanogpt.py", "pickle.dumps"): "writes the meta.pkl that nanoGPT's programs look for; reads none",
    ("pipeline/cluster.py", "urllib.request.urlopen"): "asks the job server that it has started itself, on loopback",
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "pty", "commands"}
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
METHODS = {"extractall", "extract", "read_pickle", "to_pickle"}
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False, "verify": False}


def unsafe(source: str) -> Iterator[str]:
    """What a module's source does that is not to be done."""
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
            elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
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
    assert len(found) > 400
    return found


def test_the_package_does_none_of_it() -> None:
    found = {(path.relative_to(ROOT).as_posix(), what) for path in modules() for what in unsafe(path.read_text())}
    found = {(path, what) for path, what in found if not (path == "filters/pii/secrets.py" and what == "extract")}
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set(), "an exception that nobody needs any more"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "eval(x)",
        "exec(x)",
        "import os\nos.system('ls')",
        "subprocess.run(x, shell=True)",
        "import yaml\nyaml.load(x)",
        "torch.load(x)",
        "np.load(x, allow_pickle=True)",
        "tarfile.open(x).extractall('.')",
        "a.extract(m)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "tempfile.mktemp()",
        "from urllib.request import urlopen",
        "requests.get(x, verify=False)",
        "torch.load(x, weights_only=False)",
    ],
)
def test_it_would_be_seen(source: str) -> None:
    assert list(unsafe(source))


def test_what_is_safe_is_not_reported() -> None:
    assert not list(unsafe("yaml.safe_load(x)\nsubprocess.run(['ls'], check=True)\nnp.load(x)\nmodel.eval()\njson.loads(x)\nre.compile(x)"))


def test_every_exception_to_a_rule_of_safety_says_why() -> None:
    """`noqa: S...` in the package stands with its reason."""
    for path in modules():
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.COMMENT and "noqa" in token.string and ": S" in token.string:
                assert " - " in token.string, f"{path}:{token.start[0]}"
