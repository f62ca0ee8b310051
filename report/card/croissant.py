"""Makes `croissant.json`: Croissant 1.0 metadata of a run's documents
(https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html)."""

import json
import re
from typing import Any

import pyarrow as pa

from corpusmill.pipeline.safe import safe_line
from corpusmill.report.card.contents import Contents

#: The meanings of the columns that every run has (pipeline/schemas.py), and of those that this project's steps and stages append.
MEANINGS = {
    "id": "32 hex digits made of the document's origin and its content",
    "url": "where the page was",
    "timestamp": "when the crawl fetched it, ISO 8601",
    "source": "the crawl file that it comes from",
    "offset": "where its record begins in the crawl file: bytes, or the row of a table",
    "length": "bytes of the record in the crawl file",
    "text": "the main text",
    "title": "the title that the page gives itself",
    "author": "the author that the page names",
    "date": "the day of publication that the page names, YYYY-MM-DD",
    "canonical_url": "the address that the page calls its own",
    "page_type": "what kind of page it was: article, documentation, service, forum, collection, listing or product",
    "page_type_score": "how sure that type is, 0 to 1",
    "metadata": "a JSON object of whatever else the input had",
    "language": "the most likely language, as a classifier judges",
    "language_score": "how sure the classifier of languages is, 0 to 1",
    "language_script": "the script, ISO 15924",
    "quality": "score of the quality classifier, 0 to 1",
    "toxicity": "score of the toxicity classifier, 0 to 1",
    "cluster_size": "how many copies of it the run had, itself included",
    "cluster_id": "the same for all copies of a document",
}


def croissant_type(type_: pa.DataType) -> str:
    """Returns the type of a column (for a list, of its items) as schema.org names it."""
    if is_list(type_):
        return croissant_type(type_.value_type)
    if pa.types.is_boolean(type_):
        return "sc:Boolean"
    if pa.types.is_integer(type_):
        return "sc:Integer"
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "sc:Float"
    if pa.types.is_temporal(type_):
        return "sc:DateTime"
    return "sc:Text"


def is_list(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)


PARQUET = "application/x-parquet"
FILES, RECORDS = "files", "documents"
#: The context that the specification requires.
_TERMS = """
    citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5
    parentField path recordSet references regex repeated replace samplingRate separator source subField transform
"""
CONTEXT: dict[str, Any] = {
    **{term: f"cr:{term}" for term in _TERMS.split()},
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def croissant(contents: Contents, name: str, description: str, languages: list[str], licence: str | None, version: str) -> bytes:
    """Returns the content of the file. Its paths are relative to the folder that holds `contents.stage`; hashes and sizes come from the
    manifest."""
    whole: dict[str, Any] = {
        "@context": CONTEXT, "@type": "sc:Dataset", "name": _name(name), "alternateName": safe_line(name, 200),
        "description": safe_line(description, 2000), "conformsTo": "http://mlcommons.org/croissant/1.0",
        **({"license": licence} if licence else {}), **({"inLanguage": languages} if languages else {}),
        "keywords": ["text", "pretraining", "corpusmill"], "creator": {"@type": "sc:Organization", "name": f"corpusmill {version}"},
        "distribution": [*(_file(contents.stage, output) for output in contents.files), _file_set(contents)],
        "recordSet": [_records(contents)],
    }  # fmt: skip
    return json.dumps(whole, indent=2, ensure_ascii=False).encode() + b"\n"


def _name(name: str) -> str:
    """Returns a name with only the characters that Croissant allows."""
    return re.sub(r"[^\w-]+", "-", safe_line(name, 200), flags=re.ASCII).strip("-") or "corpus"


def _file(stage: str, output: Any) -> dict[str, Any]:
    path = f"{stage}/{output.path}"
    return {
        "@type": "cr:FileObject", "@id": path, "name": path, "contentUrl": path, "contentSize": f"{output.bytes} B",
        "encodingFormat": PARQUET, "sha256": output.sha256,
    }  # fmt: skip


def _file_set(contents: Contents) -> dict[str, Any]:
    """Returns one file set for all shards. Its pattern is relative to croissant.json, since mlcroissant can't read a set that is contained
    in several files."""
    return {
        "@type": "cr:FileSet", "@id": FILES, "name": FILES, "description": f"The {len(contents.files):,} shards of documents.",
        "encodingFormat": PARQUET, "includes": f"{contents.stage}/data/*.parquet",
    }  # fmt: skip


def _records(contents: Contents) -> dict[str, Any]:
    """Returns the record set with one record for each document. `id` is its key only where copies were removed: before, a page may occur in
    several crawl files."""
    key = {"key": {"@id": f"{RECORDS}/id"}} if contents.distinct else {}
    fields = [
        {
            "@type": "cr:Field", "@id": f"{RECORDS}/{column.name}", "name": column.name,
            "description": MEANINGS.get(column.name, column.name), "dataType": croissant_type(column.type),
            **({"repeated": True} if is_list(column.type) else {}),
            "source": {"fileSet": {"@id": FILES}, "extract": {"column": column.name}},
        }
        for column in contents.schema
    ]  # fmt: skip
    return {"@type": "cr:RecordSet", "@id": RECORDS, "name": RECORDS, "description": "One record a document.", **key, "field": fields}
