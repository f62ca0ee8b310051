"""Runs coverage-guided fuzzing of all readers of files: `make fuzz`.

    python tests/fuzz/fuzz_all.py [TARGET ...] [--seconds 300] [--seed N] [--out runs/fuzz]

Each target gets an equal part of the time, in a process of its own, one after the other. Inputs that reach new code are kept in
OUT/corpus/TARGET, so the next call continues from there. An input that breaks a target (an undocumented exception, more than
10 seconds, 3 GiB of memory, a crash) is kept in OUT/found/TARGET and named at the end, with exit code 1: mend the code, and move the
input to tests/fuzz/cases/TARGET.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzzing import HERE, SECONDS, names

#: MiB of a whole process under libFuzzer; torch alone takes about 500.
MOST_MEMORY = 3072
#: Seconds for a process's imports and the compilation of kernels.
STARTING = 300
LAST = re.compile(r"#(\d+).*?cov: (\d+)")


def fuzz(target: str, seconds: int, seed: int, out: Path) -> list[Path]:
    """Fuzzes one target; returns the inputs that break it."""
    corpus, found, log = out / "corpus" / target, out / "found" / target, out / f"{target}.log"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={SECONDS}", f"-rss_limit_mb={MOST_MEMORY}",
               f"-artifact_prefix={found}/", "-print_final_stats=1"]  # fmt: skip
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="corpusmill-fuzz-", dir=shared if shared.is_dir() else None) as scratch,
        open(log, "wb") as file,
    ):
        command = [sys.executable, str(HERE / "fuzz_one.py"), target, *options, str(corpus)]
        try:
            environment = {**os.environ, "TMPDIR": scratch, "CORPUSMILL_CACHE": f"{scratch}/cache"}
            code = subprocess.run(command, stdout=file, stderr=file, env=environment, timeout=seconds + STARTING, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
    new = sorted(set(found.iterdir()) - before)
    counts = LAST.findall(log.read_text(errors="replace"))
    tries, covered = counts[-1] if counts else ("0", "0")
    print(f"{target}: {int(tries):,} inputs, {int(covered):,} edges{f', BROKEN by {len(new)}' if new else ''}", flush=True)
    return new or ([log] if code else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", help=f"all of them: {', '.join(names())}")
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    options = parser.parse_args()
    if unknown := set(options.target) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))} (there are {', '.join(names())})")
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 31)
    targets = options.target or names()
    print(f"seed {seed}: {len(targets)} targets, {max(options.seconds // len(targets), 1)} seconds each", flush=True)
    found = [path for name in targets for path in fuzz(name, max(options.seconds // len(targets), 1), seed, options.out.resolve())]
    for path in found:
        print(f"broken: {path}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
