"""What of a run that is gone on with will be done again, and why: told before anything is done.

A stage is redone where its section of the recipe, its code or its inputs changed; a later one where what it reads comes out otherwise,
which nobody knows before. Tasks decide for themselves in the end (manifest.py): those of which nothing changed are taken over.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic_core import to_jsonable_python

from corpusmill.pipeline.code import SHOWN, Code, shortened
from corpusmill.pipeline.config import ASIDE, Config, config_digest, digest
from corpusmill.pipeline.errors import CorpusmillError, InputError
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.recipe import STAGES
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.watch.meters import documents_of

#: Characters of a value that are told.
LONGEST = 40
#: new: nothing of it is there. taken over: finished, and nothing changed. goes on: half done, or finished without tasks that are tried
#: again. redone: all that depends on a change. depends: what reads outputs of another stage that may change.
State: TypeAlias = Literal["new", "taken over", "goes on", "redone", "depends"]


@dataclass(frozen=True)
class Expected:
    """What will become of a stage of which `tasks` tasks are finished; `why` in words."""

    stage: str
    state: State
    why: str
    tasks: int

    @property
    def sentence(self) -> str:
        counted = f"{self.tasks:,} task{'' if self.tasks == 1 else 's'}"
        told = {
            "new": "to do",
            "taken over": f"taken over ({counted})",
            "goes on": f"goes on ({counted} finished)",
            "redone": f"redone, {self.why}",
            "depends": f"redone {self.why}",
        }
        return f"{self.stage}: {told[self.state]}"


def expect(
    run: Storage, former: Mapping[str, Any] | None, sections: Mapping[str, Config], inputs: Sequence[str], names: Sequence[str]
) -> list[Expected]:
    """What will become of the stages `names`. `former`: the run's description (`run.json`) of before."""
    found: list[Expected] = []
    for name in names:
        manifest = Manifest(run.child(name), read_only=True)
        why = _reasons(name, sections[name], manifest, former, inputs)
        touched = next((e.stage for e in reversed(found) if e.state != "taken over"), None)
        state: State
        if not manifest.tasks:
            state, why = "new", ""
        elif why:
            state = "redone"
        elif touched is not None:
            state, why = "depends", f"where what {touched} writes changes"
        else:
            state = "taken over" if manifest.complete and not manifest.quarantined else "goes on"
        found.append(Expected(name, state, why, len(manifest.tasks)))
    return found


def paragraph(expected: Sequence[Expected]) -> str | None:
    """What is said on the terminal; None where nothing that was there before will be done again."""
    if not any(e.state == "redone" for e in expected):
        return None
    return "This run is there already, and something has changed. " + "; ".join(e.sentence for e in expected) + "."


def _reasons(name: str, section: Config, manifest: Manifest, former: Mapping[str, Any] | None, inputs: Sequence[str]) -> str:
    """Why the stage's tasks have to be done again; empty where they do not."""
    if not manifest.tasks:
        return ""
    told: list[str] = []
    rows = [(row.config, row.code) for row in manifest.tasks.values()]
    before, now = former["recipe"].get(name) if former else None, section.model_dump(mode="json")
    same = before == now and not manifest.complete  # the one phase that depends on all of the section may be still to come
    if not same and config_digest(section) not in {config for config, _ in rows}:
        told.append(_shown(before, now) or "its section of the recipe changed")
    told += _code_changes(manifest, {code for _, code in rows})
    if name == "ingest" and former and list(former["inputs"]) != list(inputs):
        old, new = set(former["inputs"]), set(inputs)
        told.append(f"the inputs changed ({len(new - old):,} more, {len(old - new):,} less; files that are the same are taken over)")
    return ", ".join(told)


def _code_changes(manifest: Manifest, used: Set[str]) -> list[str]:
    """What changed of the code by which the tasks were done: nothing where some tasks of each module were done by the present one."""
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
    return shortened([_told(path, old, new) for path, old, new in changes(before, now)])


def changes(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The values of JSON that differ: where they are (`thresholds.gopher_short_doc`), before, now; None where there is none."""
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
    """Finished stages whose results other inputs or another recipe would replace: the first one that is asked for differently, and all
    behind it. Stages before `first` stay as they are.

    Raises InputError, which says what would be lost, unless `redo`. New code or new libraries are no reason to refuse: they change
    neither the inputs nor the recipe.
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
            differs += [_told(f"{name}.{path}", old, new) for path, old, new in _asked_for(type(now), before, now)]
        elif now is not None and name in finished:  # a command with a shorter recipe came in between
            own = config_digest(now)
            differs += [f"{name} is configured otherwise"] if all(row.config != own for row in manifests[name].rows()) else []
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
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    if not gone and not new:
        return ["the inputs come in another order"] if list(before) != list(now) else []
    if len(gone) <= 1 and len(new) <= 1:
        return [f"input {_end(gone)} → {_end(new)}"]
    return [f"{len(new):,} new inputs, {len(gone):,} no longer given"]


def _end(inputs: Sequence[str]) -> str:
    """One input or none in few words: of a long path its end."""
    text = inputs[0] if inputs else "nothing"
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def _asked_for(schema: type[Config], before: Mapping[str, Any], section: Config, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The options of a section that differ from those stored: their place, before, now. An option that the code has gained since counts
    only where it is not at its default, and one that the code has lost not at all."""
    stored, now = schema.without_places(dict(before)), section.deciding()
    for name, field in schema.model_fields.items():
        path, value = f"{place}{name}", getattr(section, name)
        if field.json_schema_extra == ASIDE or name not in now:
            continue
        if name not in stored:
            if now[name] != to_jsonable_python(field.get_default(call_default_factory=True), fallback=repr):
                yield path, None, now[name]
        elif isinstance(value, Config) and isinstance(stored[name], dict):
            yield from _asked_for(type(value), stored[name], value, f"{path}.")
        else:
            yield from changes(stored[name], now[name], path)


def _counted(stage: str, manifest: Manifest) -> str:
    kept = documents_of(manifest).get("kept")
    return stage if kept is None else f"{stage} ({kept:,} document{'' if kept == 1 else 's'})"


def _told(place: str, old: Any, new: Any) -> str:
    return f"{place} {_short(old)} → {_short(new)}"


def read_former(content: bytes | None) -> dict[str, Any] | None:
    """A run's description of before; None where there is none that can be read."""
    try:
        said = json.loads(content) if content is not None else None
        if not isinstance(said, dict) or not isinstance(said["recipe"], dict):
            return None
        return {**said, "inputs": [str(path) for path in said["inputs"]]}
    except (ValueError, KeyError, TypeError, CorpusmillError):
        return None


def configuration(former: Mapping[str, Any] | None, description: Mapping[str, Any]) -> dict[str, Any]:
    """What the log keeps of a change of the run's description: digests of both, and what differs."""
    before = dict(former) if former else {}
    different = [[path, _short(old), _short(new)] for path, old, new in changes(before, dict(description))] if former else []
    return {"before": digest(before) if former else None, "now": digest(dict(description)), "changes": different[:50]}
