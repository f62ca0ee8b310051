"""What an index refuses, in one sentence."""

from pathlib import Path

import pyarrow as pa
import pytest

from corpusmill.dedup.index import CrawlIndex, kept_ids
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.schemas import DOCUMENTS


def test_other_parameters_are_refused_with_both_named(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a"]], index={**index, "name": "one"})
    sentence = r"index: this index was made with other parameters \(dedup\.minhash\.bands is 14 there and 20 here; dedup\.minhash\.seed is 1 there and 2 here\)\.$"  # noqa: E501
    with pytest.raises(InputError, match=sentence):
        dedup([["b"]], index={**index, "name": "two"}, minhash={"bands": 20, "seed": 2})
    with pytest.raises(InputError, match=r"dedup\.index\.earlier is 'union' there and 'fixed' here"):
        dedup([["b"]], index={**index, "name": "two", "earlier": "fixed"})
    for option, value in (("threshold", 0.8), ("keep", "newest"), ("max_cluster", 5), ("similarity", "containment")):
        with pytest.raises(InputError, match=rf"other parameters \(dedup\.{option} is .* there and {value!r} here\)"):
            dedup([["b"]], index={**index, "name": "two"}, **{option: value})
    dedup([["b"]], index={**index, "name": "two"}, by="host", alarm_share=0.1)
    assert [entry.name for entry in CrawlIndex(index["path"]).entries()] == ["one", "two"]


def test_a_name_that_another_run_has_is_refused(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index"), "name": "same"}
    first = dedup([["a"]], index=index)
    with pytest.raises(InputError, match=r"index/same: this entry of the index is of a run with other documents; give this one"):
        dedup([["b"]], index=index)
    assert kept_ids(index["path"]) == {first.report[0]["id"]}
    for name in ("a/b", ".hidden", ".."):
        with pytest.raises(InputError, match=r"dedup\.index\.name: '.*' can't be the name of a folder"):
            dedup([["b"]], index={**index, "name": name})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{broken", r"one/entry\.json: not JSON"),
        (b"\xff\xfe", r"one/entry\.json: not JSON"),
        (b"[]", r"one/entry\.json: not a JSON object"),
        (b"{}", r"one/entry\.json: not an entry of an index"),
        (b'{"shards": [1]}', r"one/entry\.json: not an entry of an index"),
        (
            b'{"shards": [{"name": "a", "rows": 1, "texts": null, "signatures": {}, "keys": [], "entry": null}]}',
            r"not an entry of an index",
        ),
    ],
)
def test_a_broken_entry_is_one_sentence(content: bytes, sentence: str, dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a"]], index={**index, "name": "one"})
    (tmp_path / "index/one/entry.json").write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        dedup([["b"]], index={**index, "name": "two"})


def test_an_entry_that_lacks_a_file_is_one_sentence(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index")}
    dedup([["a"]], index={**index, "name": "one"})
    (tmp_path / "index/one/keys/part-00000.exact.arrow").unlink()
    with pytest.raises(InputError, match=r"index/one/keys/part-00000\.exact\.arrow: can't be read"):
        dedup([["b"]], index={**index, "name": "two"})


def test_columns_of_other_policies(dedup, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = {"path": str(tmp_path / "index"), "earlier": "fixed"}
    schema = DOCUMENTS.append(pa.field("quality", pa.float64()))
    dedup([[{"text": "a", "url": "1", "quality": 0.5}]], schema, index={**index, "name": "one"}, keep="quality")
    result = dedup([[{"text": "a", "url": "2"}]], index={**index, "name": "two"})  # needs no quality
    assert sorted([row["cluster_size"] for row in result.report]) == [2]
    with pytest.raises(InputError, match=r"index/two: this entry has no column 'quality', which dedup\.keep needs"):
        dedup([[{"text": "a", "url": "3", "quality": 1.0}]], schema, index={**index, "name": "three"}, keep="quality")
