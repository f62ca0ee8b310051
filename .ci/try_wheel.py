"""Installs a wheel alone into a fresh environment outside of the checkout, and uses it there: `make wheel-test`.

    python .ci/try_wheel.py WHEEL

Needs a package registry. Prints the size of the environment and the time to the first result. Exits with 1 and a sentence where something
is not as it should be.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from pydoc_data.topics import topics

RECIPE = """
ingest: {}
filter: {preset: fineweb, thresholds: {gopher_below_alpha_threshold: 0}}
dedup: {}
tokenizer: {vocab_size: 512}
tokens: {validation_share: 0.1}
"""
REFUSED = "corpusmill: pretrain: torch is not installed here; pip install 'corpusmill[train]'.\n"


class Environment:
    """A fresh environment of Python, and a folder with documents in which its commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "environment"
        venv.create(self.place, with_pip=True)
        lines = (json.dumps({"text": text}) + "\n" for text in topics.values() if len(text) > 1500)
        (folder / "my.jsonl").write_text("".join(lines))
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "with_model.yaml").write_text(RECIPE + "pretrain: {}\n")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment. Kernels are compiled anew, and nothing of the checkout is seen."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "NUMBA_CACHE_DIR")
        variables = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "CORPUSMILL_CACHE": str(self.folder / "cache")
        }
        path = [str(self.place / "bin" / command[0]), *command[1:]]
        return subprocess.run(path, cwd=self.folder, env=variables, capture_output=True, text=True, check=False)

    def size(self) -> tuple[float, int]:
        """Returns the megabytes and the number of packages, pip among them."""
        packages = next(self.place.glob("lib/python*/site-packages"))
        size = sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file() or path.is_symlink())
        return size / 1e6, len(list(packages.glob("*.dist-info")))


def expect(true: bool, what: str, done: subprocess.CompletedProcess[str] | None = None) -> None:
    if not true:
        sys.exit(f"{what}\n{done.stdout[-2000:] + done.stderr[-2000:] if done else ''}")


def say(line: str) -> None:
    print(line, flush=True)


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        there = Environment(Path(folder))
        done = there.run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel.resolve()))
        expect(done.returncode == 0, "The wheel can't be installed.", done)
        megabytes, packages = there.size()
        say(f"installed in {time.monotonic() - started:.0f} s: {packages} packages, {megabytes:,.0f} MB")
        done = there.run("python", "-c", "import torch")
        expect(done.returncode == 1, "The core brings torch.", done)
        done = there.run("corpusmill", "--version")
        expect(" (commit " in done.stdout, "The version has no commit.", done)
        say(done.stdout.strip())
        for how in ("cold", "warm"):
            started = time.monotonic()
            done = there.run("corpusmill", "run", "fineweb", "my.jsonl", "--output", how)
            expect(done.returncode == 0 and (Path(folder) / how / "report.html").exists(), "The recipe fineweb fails.", done)
            say(f"corpusmill run fineweb my.jsonl, {how}: {time.monotonic() - started:.0f} s")
        done = there.run("corpusmill", "run", "recipe.yaml", "my.jsonl", "--output", "tokens")
        expect(done.returncode == 0, "A recipe with tokens fails.", done)
        expect(json.loads((Path(folder) / "tokens/tokens/train/shards.json").read_text())["tokens"] > 0, "There are no tokens.", done)
        done = there.run("corpusmill", "run", "with_model.yaml", "my.jsonl", "--output", "model")
        expect(done.returncode == 2 and done.stderr == REFUSED, "A recipe that needs torch is not refused in one sentence.", done)
        expect(not (Path(folder) / "model").exists(), "A refused recipe has begun its work.", done)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
