"""What differs in how two runs were made: their inputs, the lines of their recipes, and the versions."""

from collections.abc import Iterator
from typing import Any

from corpusmill.report.read import RunReader

#: What a run lacks that the other has.
ABSENT = "(not there)"


def read_settings(a: RunReader, b: RunReader) -> list[tuple[str, Any, Any]]:
    """(key, value of the first run, value of the second) of all that `run.json` says differently; a key is like `dedup.threshold`."""
    flat = [dict(_flat("", reader.description)) for reader in (a, b)]
    keys = list(dict.fromkeys([*flat[0], *flat[1]]))
    rows = [(key.removeprefix("recipe."), flat[0].get(key, ABSENT), flat[1].get(key, ABSENT)) for key in keys]
    return [row for row in rows if row[1] != row[2] or type(row[1]) is not type(row[2])]


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each leaf by its key. Steps, which a list holds, are named by what they are; a step that is there again gets a number."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), item)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and len(item) == 1 for item in value):
        seen: dict[str, int] = {}
        for item in value:
            name, options = next(iter(item.items()))
            seen[name] = seen.get(name, 0) + 1
            number = "" if seen[name] == 1 else f"#{seen[name]}"
            yield from _flat(f"{key}.{name}{number}", options if options else {})
    else:
        yield key, value
