"""Services that one package offers to the stages of another, looked up by name, so that these packages do not import each other.

A task that uses a service has the service's name among its parameters, so that the service's code is part of the task's code (`code.py`).
"""

import importlib
from typing import Any

#: The module of each service.
SERVICES = {
    "overlap": "corpusmill.dedup.contamination.editor",  # finds the items of an evaluation set in documents
}


def service(name: str) -> Any:
    """Imports and returns the module of a service."""
    return importlib.import_module(SERVICES[name])
