"""Runs commands of another copy of the package: loads its libraries once, and forks this process for each command.

Usage: python forking_command.py, with the copy on PYTHONPATH. Each line on standard input is JSON, `[arguments, file for the output]`;
each line on standard output is an exit code.
"""

import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forked import Driver

if __name__ == "__main__":
    for name in ("pipeline.run", "ingest.stage", "filters.stage", "filters.worker"):
        importlib.import_module(f"corpusmill.{name}")
    for line in sys.stdin:
        arguments, said = json.loads(line)
        print(Driver(arguments, Path(said), os.environ).wait(600), flush=True)
