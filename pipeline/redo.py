"""Lists the stages that a resumed run will redo, and why, before it starts; and refuses to replace finished ones without `--redo`.

A stage is redone where its section of the recipe, its code or its inputs changed. A later stage is redone where the outputs that it
reads change, which is known only when they are written. The list is a forecast: the run decides for each task (manifest.py), and takes
over those whose identity is unchanged.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic_core import to_jsonable_python

from corpusmill.pipeline.code import SHOWN, Code, shortened
from corpusmill.pipeline.config import INERT, Config, config_digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.names import counted
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.storage import Storage

#: The most characters of a value in a sentence.
LONGEST = 40
#: new: the stage has no task yet. reused: it is finished, and nothing changed. goes on: it is unfinished, or finished without
#: quarantined tasks, which are tried again. redone: its section, code or inputs changed. depends: it reads outputs that may change.
State: TypeAlias = Literal["new", "reused", "goes on", "redone", "depends"]


@dataclass(frozen=True)
class Expected:
    """What a run will do with a stage, and `why`, in words. `tasks` counts the finished tasks of the stage."""

    stage: str
    state: State
    why: str
    tasks: int

    @property
    def sentence(self) -> str:
        done = counted(self.tasks, "task")
        words = {
            "new": "to do",
            "reused": f"reused ({done})",
            "goes on": f"goes on ({done} finished)",
            "redone": f"redone, {self.why}",
            "depends": f"redone {self.why}",
        }
        return f"{self.stage}: {words[self.state]}"


def expect(
    run: Storage, former: Mapping[str, Any] | None, sections: Mapping[str, Config], inputs: Sequence[str], names: Sequence[str]
) -> list[Expected]:
    """Returns what the run will do with each of the stages `names`. `former`: the earlier content of `run.json`."""
    found: list[Expected] = []
    for name in names:
        manifest = Manifest(run.child(name), read_only=True)
        why = _reasons(name, sections[name], manifest, former, inputs)
        touched = next((e.stage for e in reversed(found) if e.state != "reused"), None)
        state: State
        if not manifest.tasks:
            state, why = "new", ""
        elif why:
            state = "redone"
        elif touched is not None:
            state, why = "depends", f"where the output of {touched} changes"
        else:
            state = "reused" if manifest.complete and not manifest.quarantined else "goes on"
        found.append(Expected(name, state, why, len(manifest.tasks)))
    return found


def paragraph(expected: Sequence[Expected]) -> str | None:
    """Returns the sentences for the terminal; None if no stage is redone for a change of its own."""
    if not any(e.state == "redone" for e in expected):
        return None
    return "This run already exists, and something has changed. " + "; ".join(e.sentence for e in expected) + "."


def _reasons(name: str, section: Config, manifest: Manifest, former: Mapping[str, Any] | None, inputs: Sequence[str]) -> str:
    """Returns why tasks of the stage have to be redone; empty where none has to be."""
    if not manifest.tasks:
        return ""
    reasons: list[str] = []
    rows = [(row.config, row.code) for row in manifest.tasks.values()]
    before, now = former["recipe"].get(name) if former else None, section.model_dump(mode="json")
    same = before == now and not manifest.complete  # the phase that depends on the whole section may not have run yet
    if not same and config_digest(section) not in {config for config, _ in rows}:
        reasons.append(_shown(before, now) or "its section of the recipe changed")
    reasons += _code_changes(manifest, {code for _, code in rows})
    if name == "ingest" and former:
        reasons += _inputs_differ(former["inputs"], inputs)
    return ", ".join(reasons)


def _code_changes(manifest: Manifest, used: Set[str]) -> list[str]:
    """Returns what changed in the code since the tasks were done; empty where some tasks of each module were done by the present code."""
    if used - manifest.codes.keys():
        return ["the code changed"]
    by_module: dict[str, list[Code]] = {}
    for done_by, parts in manifest.codes.items():
        if done_by in used:
            by_module.setdefault(parts["module"], []).append(Code.from_json(parts))
    changed = dict.fromkeys(
        change
        for _, codes in sorted(by_module.items())
        if not any(code.digest == code.now().digest for code in codes)
        for change in codes[-1].changes(codes[-1].now())
    )
    return [shortened(list(changed))] if changed else []


def _shown(before: Any, now: Any) -> str:
    if not isinstance(before, dict):
        return ""
    return shortened([_difference(path, old, new) for path, old, new in changes(before, now)])


def changes(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the differences of two JSON values: place (`thresholds.gopher_short_doc`), value before, value now; None: no value."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted({**before, **now}):
            yield from changes(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from changes(old, new, f"{path}[{number}]")
    elif before != now:
        yield path, before, now


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def replaced(
    run: Storage, former: Mapping[str, Any], sections: Mapping[str, Config], inputs: Sequence[str], first: str, redo: bool
) -> list[str]:
    """Returns the finished stages that other inputs or another recipe would replace: the first stage that differs, and all after it.
    Stages before `first` stay as they are.

    Without `redo`, raises InputError where there are any; the message says what would be lost. New code and new libraries are no reason
    to refuse: they change neither the inputs nor the recipe.
    """
    order = list(STAGES)
    manifests = {name: Manifest(run.child(name), read_only=True) for name in order[order.index(first) :]}
    finished = [name for name in manifests if manifests[name].complete]
    why: list[str] = []
    lost: list[str] = []
    for name in manifests:
        differs = _inputs_differ(former["inputs"], inputs) if name == "ingest" else []
        affected = [later for later in finished if order.index(later) >= order.index(name)]
        before, now = former["recipe"].get(name), sections.get(name)
        if now is not None and isinstance(before, dict):
            differs += [_difference(f"{name}.{path}", old, new) for path, old, new in _asked_for(type(now), before, now)]
        elif now is not None and name in finished:  # a command whose recipe lacks this stage came in between
            digest_now = config_digest(now)
            differs += [f"{name} is configured otherwise"] if all(row.config != digest_now for row in manifests[name].rows()) else []
        elif (now is None) != (before is None):
            differs += [f"the recipe has {'no' if now is None else 'a new'} stage {name}"]
            affected = [later for later in affected if later != name]
            affected = affected if any(later in sections for later in affected) else []
        if differs and affected:
            why += differs
            lost = lost or affected
    if lost and not redo:
        more = f" and {len(why) - SHOWN} more changes" if len(why) > SHOWN else ""
        raise InputError(
            f"{run.root}: {', '.join(why[:SHOWN])}{more}: this would replace what is finished there, "
            f"{', '.join(_counted(name, manifests[name]) for name in lost)}; add --redo to replace it, or take another folder to keep both."
        )
    return lost


def _inputs_differ(before: Sequence[str], now: Sequence[str]) -> list[str]:
    gone, new = set(before) - set(now), set(now) - set(before)
    if gone or new:
        return [f"the inputs changed ({len(new):,} added, {len(gone):,} removed)"]
    return ["the inputs come in another order"] if list(before) != list(now) else []


def _asked_for(schema: type[Config], before: Mapping[str, Any], section: Config, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the options of a section that differ from the stored ones: place, before, now. An option that the stored section lacks
    counts only where it is not at its default; a stored option that the code no longer has does not count."""
    stored, now = schema.without_places(dict(before)), section.deciding()
    for name, field in schema.model_fields.items():
        path, value = f"{place}{name}", getattr(section, name)
        if field.json_schema_extra == INERT or name not in now:
            continue
        if name not in stored:
            if now[name] != to_jsonable_python(field.get_default(call_default_factory=True), fallback=repr):
                yield path, None, now[name]
        elif isinstance(value, Config) and isinstance(stored[name], dict):
            yield from _asked_for(type(value), stored[name], value, f"{path}.")
        else:
            yield from changes(stored[name], now[name], path)


def _counted(stage: str, manifest: Manifest) -> str:
    kept = manifest.documents().get("kept")
    return stage if kept is None else f"{stage} ({counted(kept, 'document')})"


def _difference(place: str, old: Any, new: Any) -> str:
    return f"{place} {_short(old)} → {_short(new)}"
