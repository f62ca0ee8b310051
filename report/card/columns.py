"""The columns of documents: what they hold, in words, and their types in the terms of Croissant."""

import pyarrow as pa

#: What every run's columns mean (pipeline/schemas.py), and those that steps and stages of ours append.
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
    """The data type of a column (of its items, where it is a list) in schema.org's terms."""
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
