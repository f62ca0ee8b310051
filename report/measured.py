"""`corpusmill.measure`: the values and verdicts of a filter for texts at hand, without a run."""

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from corpusmill.filters.kept_share import keeps_shares
from corpusmill.filters.rules import decide
from corpusmill.filters.stage import FilterStage
from corpusmill.filters.worker import FilterConfig, FilterWorker, decided
from corpusmill.pipeline.errors import ConfigError, InputError
from corpusmill.pipeline.extras import require
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.names import in_sentences
from corpusmill.pipeline.recipe import Recipe
from corpusmill.pipeline.schemas import DOCUMENTS, document_id
from corpusmill.pipeline.storage import Storage
from corpusmill.text.damage import storable


@in_sentences
def measure(
    texts: str | Iterable[str],
    preset: str | None = None,
    *,
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    **section: Any,
) -> Any:
    """Measures texts as the stage `filter` does, and decides about them, without a run's folder.

    Args:
        texts: a text, or several.
        preset: the steps, word rule and thresholds of a published pipeline: `fineweb`, `gopher-paper`, `dclm`, ...
        recipe: a recipe, whose section `filter` is taken; the other arguments override its keys.
        section: other keys of that section: `steps`, `thresholds`, `word_rule`, `language`.

    Returns:
        For a text, a dict: `kept`, `failed` (all failed rules), `chars_in`, `chars_out`, each measured value, and `text` as the steps leave
        it. For several, a relation of DuckDB with such a row for each, in their order: `.df()`, `.pl()`, `.to_arrow_table()`.

    Raises:
        InputError: something else than texts was given (of a table, give its column), or the recipe (ConfigError) can't be used.

    Examples:
        ```python
        import corpusmill

        one = corpusmill.measure("Too short for FineWeb.", preset="fineweb")
        print(one["kept"], one["failed"], one["gopher_words"])
        ```
    """
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise InputError('measure: expected a text or several, not a table; give its column of texts: table["text"].')
    items = [texts] if isinstance(texts, str) else list(texts) if isinstance(texts, Iterable) else [texts]
    if wrong := [item for item in items if not isinstance(item, str)]:
        raise InputError(f"measure: expected a text or several, not {wrong[0]!r}.")
    named = Recipe({}) if recipe is None else Recipe.of(recipe)
    given = {**(named.to_dict().get("filter") or {}), **section, **({} if preset is None else {"preset": preset})}
    config = Recipe({"filter": given}, named.source).sections["filter"]
    assert isinstance(config, FilterConfig)
    if keeps_shares(config):
        raise ConfigError(f"{named.source}: a rule of filter keeps a share of a corpus, so it can't decide about single texts.")
    require("filter", *FilterStage(config).libraries())
    rows = _decide(config, [storable(item) for item in items])
    if isinstance(texts, str):
        return rows.to_pylist()[0]
    return duckdb.connect().from_arrow(rows)


def _decide(config: FilterConfig, texts: list[str]) -> pa.Table:
    """Returns the report's row of each text, without `id` and `url`, and the text as the steps leave it."""
    worker = FilterWorker(config, Storage("."), {})
    worker.setup()
    for step in worker.steps:
        step.step.begin()
    absent = dict.fromkeys(DOCUMENTS.names, [None] * len(texts))
    named = {"id": [document_id(None, text.encode()) for text in texts], "source": [""] * len(texts), "text": texts}
    documents = pa.table({**absent, **named}, schema=DOCUMENTS)
    with closing(worker):
        report, text, values = worker.report(documents, FileRef("texts", "", 0))
    failed = decide(worker.rules, values, report.num_rows)
    report = decided(report, failed, report["chars_out"].to_numpy())
    names = ["kept", "failed", "chars_in", "chars_out"]
    return report.select([*names, *values]).append_column("text", text)
