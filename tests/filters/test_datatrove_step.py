"""Tests datatrove's filters and formatters as steps: equal to datatrove itself, document by document."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datatrove.data import Document
from datatrove.pipeline import filters, formatters
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result

from corpusmill.filters.rules import METADATA_KEY
from corpusmill.filters.step import DocumentBatch, build_steps, resolve_step
from corpusmill.pipeline.errors import ConfigError, CorpusmillError
from corpusmill.pipeline.recipe import validate_recipe
from corpusmill.pipeline.shards import read_table

NUMBER = 40  # spaCy takes a second for a few hundred documents


def measure(item: Any, documents: pa.Table) -> tuple[dict[str, list[Any]], list[str]]:
    (step,) = build_steps([resolve_step({"datatrove": item})])
    step.step.setup()
    found = step.step.measure(DocumentBatch(documents, documents["text"].combine_chunks(), "words"))
    return {name: list(values) for name, values in found.columns.items()}, (found.text or documents["text"]).to_pylist()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GopherQualityFilter", {"min_doc_words": 30}),
        ("SamplerFilter", {"rate": 0.4, "seed": 3}),
        ("C4QualityFilter", {"filter_no_terminal_punct": False, "min_num_sentences": -1}),  # a filter that rewrites
    ],
)
def test_filters(name: str, options: dict, texts: list[str], make_documents: Callable) -> None:
    documents = make_documents(texts[:NUMBER] + texts[-30:] + ["A line of words. { Another one."])
    columns, new = measure({f"pipeline.filters.{name}": options}, documents)
    reference: BaseFilter = getattr(filters, name)(**options)
    originals = [Document(text=text, id=str(n)) for n, text in enumerate(documents["text"].to_pylist())]
    verdicts = [get_filter_result(reference.filter(document)) for document in originals]
    dropped, reason = columns.values()
    assert dropped == [int(not kept) for kept, _ in verdicts] and 0 < sum(dropped) < len(dropped)
    assert reason == [None if kept else why for kept, why in verdicts]
    assert new == [document.text for document in originals]


@pytest.mark.parametrize(("name", "options"), [("FTFYFormatter", {}), ("PIIFormatter", {})])
def test_formatters(name: str, options: dict, texts: list[str], make_documents: Callable) -> None:
    hard = ["schÃ¶n und gut &amp; l&apos;autre", "a@b.org 8.8.4.4 c@d.org 1.2.3.4", "* * *\nword\n---", "plain"]
    documents = make_documents(texts[:NUMBER] + hard * 3)
    columns, new = measure({f"datatrove.pipeline.formatters.{name}": options}, documents)
    reference = getattr(formatters, name)(**options)
    expected = [reference.format(text) for text in documents["text"].to_pylist()]
    assert new == expected and new != documents["text"].to_pylist()
    assert next(iter(columns.values())) == [int(a != b) for a, b in zip(expected, documents["text"].to_pylist())]


def test_columns_are_metadata(make_documents: Callable) -> None:
    documents = make_documents(["one", "two"])
    place = documents.schema.get_field_index("metadata")
    documents = documents.set_column(place, "metadata", pa.array(['{"shelf": "A"}', None]))
    (step,) = build_steps([resolve_step({"datatrove": "pipeline.filters.SamplerFilter"})])
    step.step.setup()
    seen: list[Document] = []
    step.step.step.filter = lambda document: seen.append(copy.deepcopy(document)) or True
    values = {"language": pa.array(["en", "fr"]), "other": pa.array([1, 2])}
    step.step.measure(DocumentBatch(documents, documents["text"].combine_chunks(), "words", values=values))
    assert [(document.text, document.id) for document in seen] == list(zip(["one", "two"], documents["id"].to_pylist()))
    assert seen[0].metadata == {
        "url": "http://x.test/0", "source": "crawl.warc.gz", "offset": 0, "shelf": "A", "language": "en",
    }  # fmt: skip
    assert seen[1].metadata["language"] == "fr" and "shelf" not in seen[1].metadata


def test_in_the_stage(tmp_path: Path, make_documents, finished_ingest, run_filter, texts: list[str]) -> None:
    """Compares report rows, rules and texts; each shard starts with a new filter, and a second step of a class has names of its own."""
    steps = [
        {"datatrove": {"pipeline.formatters.PIIFormatter": {}}},
        {"datatrove": {"pipeline.filters.SamplerFilter": {"rate": 0.5, "seed": 1}}},
        {"datatrove": {"pipeline.filters.SamplerFilter": {"rate": 0.9, "seed": 2}}},
        "fineweb_quality",
    ]
    mails = [f"Write to mail{n}@some.org, please." for n in range(60)]
    run = finished_ingest(tmp_path, [make_documents(mails), make_documents(mails)])
    done = run_filter(run, {"steps": steps, "thresholds": {"short_line_ratio": None, "list_ratio": None}})
    report, again = (read_table(done.storage, f"report/part-0000{part}.parquet") for part in (0, 1))
    assert report.to_pydict() == again.to_pydict() | {}
    assert [rule["rule"] for rule in json.loads(report.schema.metadata[METADATA_KEY])][:2] == ["sampler_filter", "sampler_filter_2"]
    assert json.loads(report.schema.metadata[METADATA_KEY])[1]["step"] == "datatrove:sampler_filter_2"
    reference = filters.SamplerFilter(rate=0.5, seed=1), filters.SamplerFilter(rate=0.9, seed=2)
    kept = [[step.filter(None) for step in reference] for _ in mails]
    assert report["kept"].to_pylist() == [all(both) for both in kept]
    formatter = formatters.PIIFormatter()
    expected = [formatter.format(text) for text in mails]
    data = read_table(done.storage, "data/part-00000.parquet")
    assert data["text"].to_pylist() == [text for text, both in zip(expected, kept) if all(both)]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("pipeline.filters.NoSuchFilter", r"steps\.0\.datatrove: datatrove\.pipeline\.filters has no filter or formatter 'NoSuchFilter'"),
        ("pipeline.nothing.Filter", "datatrove.pipeline.nothing: can't be imported"),
        ("pipeline.readers.JsonlReader", "is neither a filter nor a formatter"),
        ("utils.text.os", "has no filter or formatter"),
        (
            {"pipeline.filters.SamplerFilter": {"rat": 1}},
            r"unexpected keyword argument 'rat' \(datatrove's SamplerFilter has",
        ),
        ("pipeline.filters.RegexFilter", "options: missing a required argument: 'regex_exp'"),
        ({"pipeline.filters.SamplerFilter": {"exclusion_writer": "x"}}, "exclusion_writer can't be used"),
    ],
)
def test_what_it_refuses(item: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate_recipe({"filter": {"steps": [{"datatrove": item}]}}, "recipe.yaml")


def test_a_step_that_fails_is_one_sentence(make_documents: Callable) -> None:
    (step,) = build_steps([resolve_step({"datatrove": {"pipeline.filters.RegexFilter": {"regex_exp": "("}}})])
    with pytest.raises(ConfigError, match=r"datatrove's RegexFilter can't be made \((PatternError|error)"):
        step.step.setup()
    (step,) = build_steps([resolve_step({"datatrove": {"pipeline.filters.SamplerFilter": {"rate": "much", "seed": 1}}})])
    step.step.setup()
    documents = make_documents(["text"])
    with pytest.raises(CorpusmillError, match=rf"SamplerFilter failed on the document {documents['id'][0]}: TypeError"):
        step.step.measure(DocumentBatch(documents, documents["text"].combine_chunks(), "words"))
