"""What a room does for stages of another room, looked up by name, so that rooms do not import each other.

A task that uses a service has its name among its parameters: then the service's code counts for the task (`code.py`).
"""

import importlib
from typing import Any

#: The module of each service.
SERVICES = {
    "scores": "corpusmill.filters.worker",  # measures texts as the filter stage does, and gives its dropped documents back
    "overlap": "corpusmill.dedup.contamination.editor",  # finds the items of an evaluation set in documents
}


def service(name: str) -> Any:
    """The module of a service."""
    return importlib.import_module(SERVICES[name])
