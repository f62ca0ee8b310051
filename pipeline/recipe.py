"""Recipes: which stages run, and how each is configured.

A recipe is YAML with one section a stage; a stage without a section is not run. The order of the stages is fixed (`STAGES`).
The class of a stage is imported only when it is needed, so that `pipeline` does not depend on the packages of the stages.
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from corpusmill.pipeline.config import Config, unknown_key
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.names import in_sentences, instead_of, not_a_run, path_of, runs_near
from corpusmill.pipeline.stage import Stage, load_object

#: The stages in their order, and the import path of each one's class.
STAGES = {
    "ingest": "corpusmill.ingest.stage:IngestStage",
    "filter": "corpusmill.filters.stage:FilterStage",
    "dedup": "corpusmill.dedup.stage:DedupStage",
    "tokenizer": "corpusmill.tokenize.tokenizer_stage:TokenizerStage",
    "tokens": "corpusmill.tokenize.tokens_stage:TokensStage",
    "pretrain": "corpusmill.train.pretrain:PretrainStage",
    "sft": "corpusmill.train.tuning:SftStage",
    "align": "corpusmill.train.tuning:AlignStage",
    "evaluate": "corpusmill.train.evaluate:EvaluateStage",
    "ablate": "corpusmill.ablate.stage:AblateStage",
}
#: Decontamination's search, with which `evaluate` finds the items of its sets in the run's documents.
SEARCH = "corpusmill.dedup.contamination.editor"


def stage_command(folder: str, first: str, last: str | None = None, *options: str) -> str:
    """Returns the command that runs a stage of an existing run, or the stages from `first` to `last`."""
    return shlex.join(["corpusmill", "run", folder, "--from", first, "--to", last or first, *options])


def stage_class(name: str) -> type[Stage]:
    loaded: type[Stage] = load_object(STAGES[name])
    return loaded


#: The folder of the recipes that ship.
SHIPPED = Path(__file__).parent.parent / "recipes"


def recipe_path(given: str, others: Iterable[str] = ()) -> str:
    """Returns the path of a recipe file: `given`, or the one of this name that ships. Raises InputError, which names these and `others`."""
    from corpusmill.pipeline.formats.detect import named_format

    shipped = {path.stem: str(path) for path in sorted(SHIPPED.glob("*.yaml"))}
    path, there = Path(given), os.path.exists(given)  # unlike methods of Path, this takes names of any length
    if named_format(given) or given.startswith("cc:"):
        raise InputError(f"{given} is an input; begin with a recipe: {shlex.join(['corpusmill', 'run', 'fineweb', given])}")
    if there and not path.is_dir():
        return given
    if given in shipped:
        return shipped[given]
    if there and (path / "run.json").exists():
        raise InputError(f"{given}: a run, where a recipe is expected.")
    if there or "://" in given:
        raise InputError(not_a_run(given))
    beside = [str(path.parent / other) for other in sorted(glob("*.yaml", root_dir=path.parent))]
    name = path.stem if path.suffix and not beside else given
    ships = () if "/" in name else (*shipped, *others)  # what ships is in no folder
    near = [*ships, *beside, *(() if path.suffix else runs_near(given))]
    raise InputError(f"{given}: no such recipe or run{instead_of(name, near) if near else ''}.")


def recipe_name(path: str) -> str:
    """Returns what messages call a recipe: its path, or the name under which it ships."""
    return Path(path).stem if Path(path).parent == SHIPPED else path


def read_recipe(path: str, overrides: Sequence[str] = ()) -> dict[str, Config]:
    """Returns the validated sections of a recipe file, in the order of the stages, with `key=value` overrides applied."""
    return validate_recipe(read_raw(path, overrides), path)


def read_raw(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the content of a recipe file with the overrides applied; the options are not checked yet."""
    raw = read_yaml(path, "recipe", "stages to their options")
    for override in overrides:
        apply_override(raw, override)
    return raw


def read_yaml(path: str | Path, kind: str, content: str) -> dict[str, Any]:
    """Returns a YAML file that is a mapping. Raises InputError or ConfigError, which say of what `kind` the file is and what it maps."""
    try:
        raw = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a {kind} is UTF-8 text, and byte {error.start} is not.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML ({getattr(error, 'problem', error)}).") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a {kind} is a mapping of {content}.")
    return raw


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Applies `stage.key.key=value`; the value is YAML, and a number in the path is an index of a list."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected key=value, for example dedup.threshold=0.8.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML.") from error
    _set_option(raw, key, value, f"--set {override}")


#: The options whose files a recipe names relative to its own folder.
FILES = ("python", "function", "model", "file", "compare")


def _from_here(key: str, value: Any) -> Any:
    """Returns the value of an option with the files that it names made absolute. Who changes a recipe names them from where he stands."""
    if isinstance(value, Mapping):
        return {_from_here(key, name) if ".py:" in str(name) else name: _from_here(str(name), each) for name, each in value.items()}
    if isinstance(value, list):
        return [_from_here(key, each) for each in value]
    file = value.partition(":")[0] if key in FILES and isinstance(value, str) else ""
    return str(Path(file).absolute()) + value[len(file) :] if file.endswith(".py") or (file and os.path.exists(file)) else value


def _set_option(raw: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Sets `stage.key.key` of a recipe. `said`: what the user has said, for the messages."""
    *path, last = key.split(".")
    value = _from_here(last, value)
    place: Any = raw
    for part in path:
        place = _enter(place, part, said)
    if isinstance(place, list):
        place[_place_in(place, last, said)] = value
    else:
        place[last] = value


def _enter(place: Any, part: str, said: str) -> Any:
    child = place[_place_in(place, part, said)] if isinstance(place, list) else place.get(part)
    if child is None:
        child = place[part] = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"{said}: {part!r} holds a value, not a section.")
    return child


def _place_in(items: list[Any], part: str, said: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{said}: {part!r} is not an index of a list of length {len(items)}.")
    return int(part)


def validate_recipe(raw: dict[str, Any], path: str) -> dict[str, Config]:
    """Returns the sections as configurations of their stages. Raises ConfigError with all faults of a section, each with its place."""
    unknown = [name for name in raw if name not in STAGES]
    if unknown:
        rule = "" if isinstance(raw[unknown[0]], Mapping) else f"; the threshold of a filter's rule is filter.thresholds.{unknown[0]}"
        raise ConfigError(f"{recipe_name(path)}: {unknown[0]}: no such stage{instead_of(str(unknown[0]), STAGES)}{rule}.")
    sections: dict[str, Config] = {}
    folder = "." if Path(path).parent == SHIPPED else str(Path(path).parent)  # beside a recipe that ships there is no file of the user's
    for name in STAGES:
        if name in raw:
            schema = stage_class(name).Config
            try:
                sections[name] = schema.model_validate(raw[name] or {}, context={"folder": folder})
            except ValidationError as error:
                faults = "; ".join(_explain(name, e, schema) for e in _one_a_place(error.errors()))
                raise ConfigError(f"{recipe_name(path)}: {faults}.") from None  # pydantic's own message has internals
    return sections


def _one_a_place(errors: Iterable[Any]) -> list[Any]:
    """Returns the errors without those that repeat another: pydantic has one for each type of `int | float`. The last of these is kept."""
    places: dict[tuple[Any, ...], Any] = {}
    for error in errors:
        place = error["loc"]
        if place and error["type"].startswith(f"{place[-1]}_"):  # `int_parsing` at (..., "int"): the type is no part of the place
            place = place[:-1]
        places[place] = {**error, "loc": place}
    return list(places.values())


def _explain(stage: str, error: Any, schema: type[Config]) -> str:
    place = ".".join([stage, *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        return f"{place}: {unknown_key(schema, error['loc'], stage)}"
    message = error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "value_error":  # raised by a validator of ours, whose message names the value
        return f"{place}: {message.removeprefix('value error, ')}"
    return f"{place}: {message}, not {error['input']!r}"


def _copied(value: Any) -> Any:
    """Returns a copy of sections and lists. What else stands in a recipe made in Python is not copied: not every object can be."""
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


#: What messages call a recipe that is made in Python.
UNNAMED = "recipe"


class Recipe:
    """A recipe whose options are checked: the stages of a run, and the options of each.

    Args:
        stages: the options of each stage by its name, as in a recipe file. A stage with `{}` has its defaults.
        source: what messages call the recipe. Paths in the recipe are relative to its folder, if it is a file.

    Raises:
        ConfigError: a stage or an option that does not exist, or a wrong value. The message names the key.

    Examples:
        ```python
        import corpusmill

        recipe = corpusmill.Recipe({"ingest": {}, "filter": {"preset": "fineweb"}, "dedup": {}})
        stricter = recipe.with_({"dedup.threshold": 0.7, "filter.thresholds.gopher_short_doc": 80})
        print(stricter.to_yaml())
        ```
    """

    @in_sentences
    def __init__(self, stages: Mapping[str, Any], source: str = UNNAMED):
        if not isinstance(stages, Mapping):
            raise ConfigError(f"{source}: a recipe is a mapping of stages to their options, not {stages!r}.")
        self.source = source
        self._raw: dict[str, Any] = _copied(stages)
        #: The checked options of each stage, with all defaults, in the order of the stages.
        self.sections: dict[str, Config] = validate_recipe(self._raw, source)

    @classmethod
    @in_sentences
    def load(cls, recipe: "str | os.PathLike[str]") -> "Recipe":
        """Reads a recipe file, or the recipe of this name that ships (`fineweb`).

        Raises:
            InputError: there is no such recipe, or it can't be read.
        """
        path = recipe_path(path_of(recipe, "recipe"))
        return cls(read_raw(path), path)

    @classmethod
    def of(cls, given: "Recipe | Mapping[str, Any] | str | os.PathLike[str]") -> "Recipe":
        """Returns a recipe, whichever way it is given."""
        return given if isinstance(given, Recipe) else cls(given) if isinstance(given, Mapping) else cls.load(given)

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in the order in which they run."""
        return list(self.sections)

    @in_sentences
    def with_(self, changes: Mapping[str, Any]) -> "Recipe":
        """Returns a recipe with other values, by their dotted keys, as after `--set`: `{"dedup.threshold": 0.8}`. Files that these values
        name are looked for in the working folder.

        Raises:
            ConfigError: a key that does not exist, or a wrong value.
        """
        if not isinstance(changes, Mapping):
            raise InputError(f'with_: expected a mapping such as {{"dedup.threshold": 0.8}}, not {changes!r}.')
        raw = _copied(self._raw)
        for key, value in changes.items():
            _set_option(raw, key, value, key)
        return Recipe(raw, self.source)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options that were given, by stage. `sections` has those with all defaults."""
        return _copied(self._raw)

    def to_yaml(self) -> str:
        """Returns the recipe as the text of a recipe file.

        Raises:
            ConfigError: an option is no plain value (text, number, list, mapping).
        """
        try:
            return str(yaml.safe_dump(self._raw, sort_keys=False, allow_unicode=True, width=1000))
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.source}: {error.args[-1]!r} can't be written as YAML.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.sections == other.sections

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Recipe({self._raw!r})"
