"""Runs a recipe as a job of a Ray cluster: uploads what it needs, shows its log, and ends with its exit code.

The nodes need the libraries (the same Ray and Python), unless the job brings them (`--pip`), and a RUN and INPUT that all of them reach: a
shared folder, or `s3://` with credentials of their own. A job's environment can be read by everybody who sees the dashboard, so
credentials never travel with it.
"""

import argparse
import asyncio
import os
import re
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpusmill
from corpusmill.pipeline.cluster import nodes as cluster
from corpusmill.pipeline.cluster import upload as ray_upload
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.storage import is_remote

LOCAL_CLUSTER = "http://127.0.0.1:8265"
#: Where a wheel lies for the pip that Ray starts on a node.
WORKING_DIR = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
#: Names of environment variables whose values nobody else may read.
SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
#: Inputs that are no paths (ingest/commoncrawl.py).
NAMED_INPUT = "cc:"


#: Seconds for which a connection that breaks is opened again, and between two tries.
AGAIN, PAUSE = 60.0, 1.0


class Left(CorpusmillError):
    """Ctrl-C while the log of a job was shown."""

    exit_code = 130


@dataclass(frozen=True)
class Order:
    """What is asked of the cluster. Relative paths are those of the caller's folder."""

    recipe: str
    inputs: Sequence[str]
    output: str
    overrides: Sequence[str] = ()  # KEY=VALUE, as of corpusmill run
    options: Sequence[str] = ()  # further options of corpusmill run
    environment: Sequence[str] = ()  # NAME=VALUE, or NAME with the value that it has here
    extras: str | None = None  # bring a wheel and its libraries, with these extras (comma-separated; may be empty)
    same_code: bool = False  # the nodes import the very files that this process does, so none are sent


@dataclass
class Upload:
    """What a job brings, and what it does."""

    environment: dict[str, Any]  # Ray's runtime environment, in which folders stand for what is uploaded
    command: list[str]  # of corpusmill


def submit(address: str, order: Order) -> int:
    """Carries out the order on the cluster whose jobs are taken at `address`, and shows its log; returns the exit code of its command."""
    use_token()
    name = f"corpusmill-{secrets.token_hex(6)}"
    left = "interrupted before the job was sent"
    try:
        client = connect(address)
        with tempfile.TemporaryDirectory(prefix="corpusmill-job-") as folder:
            upload = prepare(Path(folder), order)
            left = f"interrupted while the job was sent; where it has arrived, it goes on until: ray job stop --address {address} {name}"
            _send(client, address, name, upload, order.extras is None)
        left = f"the log is no longer shown; the job goes on until: ray job stop --address {address} {name}"
        print(f"Job {name} at {address}: corpusmill {shlex.join(upload.command)}", flush=True)
        return asyncio.run(_follow(client, address, name))
    except KeyboardInterrupt as error:
        raise Left(left) from error


def _send(client: Any, address: str, name: str, upload: Upload, this_python: bool) -> None:
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # what the recipe names travels, whatever git thinks of it
    command = shlex.join(["sh", "-c", entrypoint(upload.command, this_python, "OMP_NUM_THREADS" in upload.environment["env_vars"])])
    try:
        client.submit_job(entrypoint=command, submission_id=name, runtime_env=upload.environment)
    except _broken() as error:
        raise CorpusmillError(f"RAY_ADDRESS={address}: the cluster does not take the job ({_reason(error)}).") from error


async def _follow(client: Any, address: str, name: str) -> int:
    """Prints the job's log until it ends. Where the connection breaks, it is opened again, and goes on where it was; after a minute
    without an answer, CorpusmillError."""
    shown, broken = 0, 0.0
    while True:
        try:
            log = ""
            async for lines in client.tail_job_logs(name):
                broken = 0.0
                log += lines
                if len(log) > shown:
                    print(log[shown:], end="", flush=True)
                    shown = len(log)
            if (info := client.get_job_info(name)).status.is_terminal():
                return _exit_code(info)
            broken = 0.0
        except _broken() as error:
            broken = broken or time.monotonic()
            if time.monotonic() - broken > AGAIN:
                job = f"the job may go on: ray job status --address {address} {name}"
                raise CorpusmillError(f"{address}: the cluster does not answer any more ({_reason(error)}); {job}") from error
        await asyncio.sleep(PAUSE)


def _broken() -> tuple[type[Exception], ...]:
    """What Ray's client raises where the job server is not there, or says that something is wrong."""
    import aiohttp
    import requests

    return (RuntimeError, TimeoutError, requests.RequestException, aiohttp.ClientError)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def prepare(folder: Path, order: Order) -> Upload:
    """Puts what travels into `folder`: the code apart from the recipe, so that it keeps its place (and compiled kernels) on the nodes
    whatever recipe comes with it."""
    work = folder / "work"
    ray_upload.stage_recipe(work, _recipe_file(order.recipe), order.overrides, _say)
    environment: dict[str, Any] = {"working_dir": str(work), "env_vars": job_environment(order.environment)}
    if order.extras is None and not order.same_code:
        environment["py_modules"] = [str(ray_upload.stage_package(folder / "code"))]
    if order.extras is not None:
        extras = f"[{order.extras}]" if order.extras else ""
        environment["pip"] = {"packages": [f"{WORKING_DIR}/{ray_upload.stage_wheel(work)}{extras}"], "pip_check": False}
    inputs = [absolute(path) for path in order.inputs]
    command = ["run", ray_upload.RECIPE, *inputs, "--output", absolute(order.output), "--engine", "ray", *order.options]
    return Upload(environment, command)


def use_token() -> None:
    """Ray sends its token only when told to: it is told where there is one to send."""
    file = Path.home() / ".ray" / "auth_token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") or file.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def connect(address: str) -> Any:
    """Ray's client for jobs; one sentence instead of its trace where the cluster refuses or is not there."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: the cluster asks for its token; put the output of its `ray get-auth-token` "
            "into ~/.ray/auth_token, or its path into RAY_AUTH_TOKEN_PATH."
        ) from error
    except Exception as error:
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray cluster takes jobs there ({_reason(error)}); start one with: make cluster-up"
        ) from error


def job_environment(names: Sequence[str]) -> dict[str, str]:
    """Environment variables of the job's processes from NAME=VALUE, or NAME alone for the value that it has here."""
    found = {}
    for given in names:
        name, equals, value = given.partition("=")
        if SECRET.search(name):
            raise InputError(f"--env {name}: everybody who sees the cluster's dashboard would read it; set it on the nodes instead.")
        if not equals and name not in os.environ:
            raise InputError(f"--env {name}: there is no such environment variable here.")
        found[name] = value if equals else os.environ[name]
    return found


def absolute(path: str) -> str:
    return path if is_remote(path) or path.startswith(NAMED_INPUT) else str(Path(path.removeprefix("file://")).absolute())


def entrypoint(command: Sequence[str], this_python: bool = True, threads_given: bool = False) -> str:
    """This Python where the head node has it (a cluster on this machine), else the job's own. The shell gives way, so signals arrive.

    Ray lets a job that takes no CPU compute with one thread, which is not what trainings in it should do, unless that was asked for.
    """
    begin = "" if threads_given else "unset OMP_NUM_THREADS; "
    if not this_python:
        return f"{begin}exec python -m corpusmill {shlex.join(command)}"
    return f"{begin}P={shlex.quote(sys.executable)}; [ -x $P ] || P=python; exec $P -m corpusmill {shlex.join(command)}"


def _recipe_file(recipe: str) -> str:
    """The file itself, or the recipe of that name that ships with the package."""
    shipped = Path(corpusmill.__file__).parent / "recipes" / f"{recipe}.yaml"
    return str(shipped) if not Path(recipe).exists() and shipped.exists() else recipe


def _exit_code(info: Any) -> int:
    """That of the job's command, which says more than the job's state (3: some tasks were quarantined); says why where it never ended."""
    if isinstance(info.driver_exit_code, int) and info.driver_exit_code >= 0:
        return int(info.driver_exit_code)
    print(f"corpusmill: the job is {info.status.value.lower()} ({(info.message or 'no reason is given').strip()}).", file=sys.stderr)
    return 1


def _say(sentence: str) -> None:
    print(f"Note: {sentence}", file=sys.stderr, flush=True)


def target(given: str | None) -> tuple[str, bool]:
    """Where jobs are submitted: what is given, the cluster that `make cluster-up` has started, or Ray's default; and whether its nodes
    import the very files that this process does: kernels that were compiled for these need not be compiled again."""
    if given:
        return given, False
    if here := cluster.find():
        os.environ.update(here.environment())
        return here.jobs, here.package == cluster.package()
    return LOCAL_CLUSTER, False


def _arguments(argv: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m corpusmill.pipeline.cluster.job", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("inputs", metavar="INPUT", nargs="*")
    parser.add_argument("--output", metavar="RUN", required=True)
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="where jobs are submitted (RAY_ADDRESS)")
    parser.add_argument("--env", metavar="NAME[=VALUE]", action="append", default=[], help="an environment variable of the job")
    parser.add_argument("--pip", metavar="EXTRAS", nargs="?", const="", help="bring a wheel and its libraries (with extras, as s3)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="as of corpusmill run")
    parser.add_argument("--strict", action="store_true", help="as of corpusmill run")
    for name in ("--workers", "--from", "--to"):
        parser.add_argument(name, help="as of corpusmill run")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    given = vars(_arguments(argv))
    options = [f"--{name}={given[name]}" for name in ("workers", "from", "to") if given[name] is not None]
    options += ["--strict"] if given["strict"] else []
    try:
        address, same = target(given["address"])
        order = Order(given["recipe"], given["inputs"], given["output"], given["set"], options, given["env"], given["pip"], same)
        return submit(address, order)
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
