"""Submits a run to a Ray cluster as a job (`ray job submit`), shows its log, and ends with its result.

What is uploaded is this package and the recipe: the job's working directory. The cluster's nodes need the
libraries (the same Ray and Python), and a RUN and INPUT that all of them can reach: a shared folder, or `s3://`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import is_remote

LOCAL_CLUSTER = "http://127.0.0.1:8265"
#: The recipe's name in the job's working directory.
RECIPE = "recipe.yaml"


def submit(address: str, recipe: str, inputs: Sequence[str], output: str, options: Sequence[str] = ()) -> int:
    """Runs `corpusmill run` as a job of the cluster at `address`; returns 0 where the job succeeded.

    Relative paths are those of the caller. `options` are further options of `corpusmill run`.
    """
    use_token()
    check_cluster(address)
    with tempfile.TemporaryDirectory(prefix="corpusmill-job-") as folder:
        recipe = stage_files(Path(folder), recipe)
        command = ["run", recipe, *(absolute(path) for path in inputs), "--output", absolute(output), "--engine", "ray", *options]
        ray = [*_ray_command(), "job", "submit", "--address", address, "--working-dir", folder]
        print(f"Submitting to {address}: corpusmill {shlex.join(command)}", flush=True)
        return subprocess.run([*ray, "--", "sh", "-c", _entrypoint(command)], check=False).returncode


def use_token() -> None:
    """Ray sends its token only when told to: it is told where there is one to send."""
    file = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or file.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def check_cluster(address: str) -> None:
    """One sentence instead of the trace that `ray job submit` prints where the cluster refuses or is not there."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: the cluster asks for its token; put the output of its `ray get-auth-token` "
            "into ~/.ray/auth_token, or its path into RAY_AUTH_TOKEN_PATH."
        ) from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster takes jobs there ({reason}); start one with: ray start --head") from error


def stage_files(folder: Path, recipe: str) -> str:
    """Copies the package (its links followed) and the recipe; returns the recipe as the job has to name it."""
    package = Path(corpusmill.__file__).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    if not Path(recipe).is_file():
        return recipe  # the name of one that ships, or a mistake that the job will name
    shutil.copyfile(recipe, folder / RECIPE)
    return RECIPE


def absolute(path: str) -> str:
    return path if is_remote(path) else str(Path(path.removeprefix("file://")).absolute())


def _entrypoint(command: Sequence[str]) -> str:
    """This Python where the head node has it (a cluster on this machine), else the cluster's own."""
    here = shlex.quote(sys.executable)
    return f"P={here}; [ -x $P ] || P=python; exec $P -m corpusmill {shlex.join(command)}"


def _ray_command() -> list[str]:
    beside = Path(sys.executable).with_name("ray")
    return [str(beside)] if beside.exists() else ["ray"]


def _arguments(argv: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m corpusmill.pipeline.ray_job", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("inputs", metavar="INPUT", nargs="*")
    parser.add_argument("--output", metavar="RUN", required=True)
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS") or LOCAL_CLUSTER, help="where jobs are submitted")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="as of corpusmill run")
    for name in ("--workers", "--from", "--to"):
        parser.add_argument(name, help="as of corpusmill run")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = vars(_arguments(argv))
    options = [f"--set={override}" for override in given["set"]]
    options += [f"--{name}={given[name]}" for name in ("workers", "from", "to") if given[name] is not None]
    try:
        return submit(given["address"], given["recipe"], given["inputs"], given["output"], options)
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("corpusmill: the log is no longer shown; the job goes on (ray job stop ends it).", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
