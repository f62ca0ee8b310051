"""Prepares a comparison: one tokenizer, the reference sets, and the token shards and draws of each variant."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from corpusmill.ablate import corpora
from corpusmill.ablate.config import AblateConfig
from corpusmill.ablate.corpora import HELD_OUT, Variant
from corpusmill.ablate.draws import DrawnDocuments, Integers, groups_of, largest_share, moved_share, passages_of
from corpusmill.pipeline.config import Config, digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.files import expand, file_ref
from corpusmill.pipeline.manifest import FileRef
from corpusmill.pipeline.runner import StageRun
from corpusmill.pipeline.shards import Content, read_table
from corpusmill.pipeline.stage import Output
from corpusmill.pipeline.token_shards import TokenShards

#: A variant with a larger share of passages from other documents may hold more different text in a draw than the first one does.
MOST_MOVED = 0.02


@dataclass(frozen=True)
class Prepared:
    """What the trainings read: the folders of token shards by variant, of the references, and of the tokenizer, and the groups of
    documents. `sets`: the reference sets by the path of the file that their documents have as source. `parts`: the tokens of each part of a
    variant, int64 [draws]. `kept`: documents in these parts. `copies`: those of them beyond the first of their group. `removed`: documents
    that hold a reference's passage, or are copies of such; None for a variant whose texts are not here. `together`: the share of
    tokens of documents that hang together by passages, where that is too large for a part, so that parts share passages; else 0. `moved`:
    then, by variant, the share of its passages that stand in other documents of the first one."""

    folders: dict[str, str]
    parts: dict[str, Integers]
    kept: dict[str, int]
    references: str
    sets: dict[str, str]
    tokenizer: str
    sha256: str
    removed: dict[str, int | None]
    copies: dict[str, int]
    groups: FileRef
    together: float
    moved: dict[str, float]

    def params(self) -> dict[str, Any]:
        found = {"references": self.references, "tokenizer": self.tokenizer, "tokenizer_sha256": self.sha256}
        return found | {"groups": self.groups.path}


def prepare(run: StageRun, config: AblateConfig, variants: Sequence[Variant]) -> Prepared:
    """Makes or takes over what the trainings read. Raises InputError for variants and references that can't be compared."""
    shards = [variant.name for variant in variants if variant.tokens is not None]
    if shards and config.tokenizer is None:
        raise InputError(f"ablate.tokenizer: {shards[0]} has token shards and no texts, so give the tokenizer.json that made them.")
    sets = _reference_sets(run, config, variants)
    tokenizer = config.tokenizer
    if tokenizer is None:
        recipe = {"ingest": {}, "tokenizer": {"vocab_size": config.vocab_size}}
        made = corpora.prepared(run, "tokenizer", recipe, [run.storage.path("sample.jsonl")])
        tokenizer = made.path("tokenizer/tokenizer.json")
    tokens = {"tokenizer": {"file": tokenizer, "judge": {"compare": []}}, "tokens": {"validation_share": 0.0}}
    references = corpora.prepared(run, "references", {"ingest": {}, **tokens}, [run.storage.path(path) for path in sets.values()])
    sha256 = hashlib.sha256(references.read_bytes("tokenizer/tokenizer.json")).hexdigest()
    forbidden = {name: path.replace("references/", "forbidden/") for name, path in sets.items()}
    folders, left_out = {}, dict[str, set[str]]()
    for variant in variants:
        if variant.tokens is not None:
            folders[variant.name] = variant.tokens
            continue
        texts = [{"path": run.storage.path(path), "fields": {"context": "text"}} for path in forbidden.values()]
        dedup = {"exact": {"enabled": False}, "minhash": {"enabled": False}, "alarm": "warn", "contamination": {"sets": texts}}
        made = corpora.prepared(run, f"variants/{variant.name}", {"ingest": {}, "dedup": dedup, **tokens}, variant.documents)
        contents = {name: run.storage.read_bytes(path) for name, path in forbidden.items()}
        folders[variant.name], left_out[variant.name] = made.path("tokens/train"), corpora.contaminated(made, variant.name, contents)
    excluded = set().union(*left_out.values())
    shards_of = {name: TokenShards(folder, tokenizer_sha256=sha256) for name, folder in folders.items()}
    row = run.once(
        "groups", [], lambda _: _groups(corpora.copies(run, variants), excluded, shards_of, config.draws),
        {"contents": [variant.contents for variant in variants], "excluded": digest(sorted(excluded)), "draws": config.draws}, Config(),
    )  # fmt: skip
    groups = read_table(run.storage, "groups.parquet")
    parts, kept, removed, copies = {}, {}, dict[str, int | None](), {}
    for name, folder in folders.items():
        drawn = DrawnDocuments(TokenShards(folder, tokenizer_sha256=sha256), groups, config.draws)
        parts[name], kept[name], copies[name] = drawn.tokens, int((drawn.part >= 0).sum()), drawn.copies
        removed[name] = len(left_out[name]) + len(drawn.part) - kept[name] if name in left_out else None
    sources = {run.storage.path(path): name for name, path in sets.items()}
    return Prepared(
        folders, parts, kept, references.path("tokens/train"), sources, references.path("tokenizer"), sha256, removed, copies,
        row.ref("ablate", "groups.parquet"), **run.storage.read_json("groups.json"),
    )  # fmt: skip


def _groups(copies: pa.Table, excluded: set[str], variants: Mapping[str, TokenShards], draws: int) -> Output:
    """Returns the groups of documents: with one URL, copies, and those that share passages. Where the latter hang together in a group that
    is as large as half of a part, passages are left out: `together` is the share of tokens in that group, and `moved` says which variants
    have passages that stand in other documents of the first."""
    passages = {name: passages_of(shards) for name, shards in variants.items()}
    every = pa.concat_tables(passages.values())
    shared = {"id": every["document"], "url": pa.nulls(len(every), pa.string()), "kept_id": every["passage"].cast(pa.string())}
    both = [copies.select(list(shared)), pa.table(shared)]
    groups = groups_of(pa.concat_tables(both, promote_options="default"), excluded)
    together, moved = largest_share(groups, variants.values()), {}
    if together <= 1 / (2 * draws):
        together = 0.0
    else:
        groups = groups_of(copies, excluded)
        first, *others = passages.values()
        shares = (moved_share(first, other) for other in others)
        moved = {name: share for name, share in zip(list(passages)[1:], shares, strict=True) if share > MOST_MOVED}
    return Output({"groups.parquet": groups, "groups.json": json.dumps({"together": together, "moved": moved}).encode()})


def _reference_sets(run: StageRun, config: AblateConfig, variants: Sequence[Variant]) -> dict[str, str]:
    """Makes the reference sets, and the sample for the tokenizer. Returns the files of the sets by name."""
    decides = {"variants": {variant.name: variant.contents for variant in variants}, "held_out": config.held_out}
    sample = run.once("sample", [], lambda _: _sample(config, variants), decides, Config())
    sets = {HELD_OUT: f"references/{HELD_OUT}.jsonl"} if any(output.path.startswith("references/") for output in sample.outputs) else {}
    languages: dict[str, dict[str, float]] = run.storage.read_json("languages.json")
    for given in config.references:
        name = corpora.reference_name(given)
        files = [] if corpora.ships(given) else [file_ref(path).fingerprint for path in expand(given)]
        run.once(f"reference-{name}", [], partial(_reference, name, given), {"files": files}, Config())
        sets[name] = f"references/{name}.jsonl"
        rows = corpora.read_json_lines(run.storage.read_bytes(sets[name]))
        languages[name] = corpora.languages_of([row["text"] for row in rows])
    if not sets:
        raise InputError("ablate: no reference set, and no held-out documents, so nothing judges; give one of them.")
    corpora.require_one_language(languages)
    return sets


def _sample(config: AblateConfig, variants: Sequence[Variant]) -> Output:
    found = corpora.sample_texts([variant for variant in variants if variant.documents], config.held_out)
    files: dict[str, Content] = {"sample.jsonl": corpora.json_lines({"text": text} for text in found.texts)}
    files["languages.json"] = json.dumps(found.languages).encode()
    if found.held_out:
        files |= corpora.reference_files(HELD_OUT, [(text, None) for text in found.held_out])
    count = len(found.held_out) + len(found.texts)
    return Output(files, rows_in=count, kept=count)


def _reference(name: str, given: str, identity: str) -> Output:
    """Returns a reference set. `identity`: of the task, which is not needed here."""
    texts = corpora.reference_texts(given)
    return Output(dict(corpora.reference_files(name, texts)), rows_in=len(texts), kept=len(texts))
