from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.policy import check_policy, microseconds, needed_columns, ranks

SCHEMA = pa.schema(
    {"id": pa.string(), "source": pa.string(), "offset": pa.int64(), "timestamp": pa.string(), "quality": pa.float64(),
     "chars": pa.int64(), "exact": pa.binary(16), "language": pa.string()}
)  # fmt: skip
TIMES = ["2024-01-01T00:00:00Z", "2024-01-01T01:30:00+02:00", "2024-01-01", "2023-12-31T23:59:59.5Z", "no time", None]
ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abc"),
        "source": st.sampled_from(["x.warc", "y.warc", "y.jsonl", "z"]),
        "offset": st.sampled_from([0, 9, 10, None]),
        "timestamp": st.sampled_from(TIMES),
        "quality": st.sampled_from([0.0, -1.0, 2.5, float("nan"), None]),
        "chars": st.integers(0, 3),
        "exact": st.sampled_from([b"\0" * 16, b"\xff" * 16]),
        "language": st.sampled_from(["en", "de", None]),
    }
)
PATTERNS = ["y.*", "*.warc"]


def present(value, sign: int = 1):  # type: ignore[no-untyped-def]
    """A sort key that puts nothing last."""
    nothing = value is None or value != value
    return (nothing, 0 if nothing else sign * value if isinstance(value, int | float) else value)


def times(a, b):  # type: ignore[no-untyped-def]
    return None if a is None or b is None else a * b


KEYS = {
    "longest": lambda row: -row["chars"],
    "quality": lambda row: present(row["quality"], -1),
    "newest": lambda row: present(microseconds(row["timestamp"]), -1),
    "oldest": lambda row: present(microseconds(row["timestamp"])),
    "first": lambda row: (row["source"], present(row["offset"])),
    "sources": lambda row: present(next((i for i, p in enumerate(PATTERNS) if fnmatchcase(row["source"], p)), None)),
    "quality * chars": lambda row: present(times(row["quality"], row["chars"]), -1),
    "language == 'en'": lambda row: present(None if row["language"] is None else int(row["language"] == "en"), -1),
    "-offset": lambda row: present(row["offset"]),
}


@pytest.mark.parametrize("keep", KEYS)
@settings(deadline=None, max_examples=30)
@given(rows=st.lists(ROW, max_size=8))
def test_ranks_are_a_stable_sort_by_policy_and_ties(keep, rows) -> None:  # type: ignore[no-untyped-def]
    check(keep, rows)


@settings(deadline=None)
@given(keep=st.lists(st.sampled_from(list(KEYS)), min_size=1, max_size=4), rows=st.lists(ROW, max_size=8))
def test_each_criterion_of_a_list_decides_the_ties_of_those_before(keep, rows) -> None:  # type: ignore[no-untyped-def]
    check(keep, rows)


def check(keep, rows) -> None:  # type: ignore[no-untyped-def]
    def slow_key(row):  # type: ignore[no-untyped-def]
        names = [keep] if isinstance(keep, str) else keep
        return [KEYS[name](row) for name in names], row["id"], row["source"], present(row["offset"]), row["exact"]

    order = sorted(range(len(rows)), key=lambda i: slow_key(rows[i]))
    assert np.argsort(ranks(pa.Table.from_pylist(rows, schema=SCHEMA), keep, PATTERNS)).tolist() == order


def test_times_are_compared_as_moments() -> None:
    assert microseconds(TIMES[1]) == microseconds("2023-12-31T23:30:00Z") == microseconds("2023-12-31T23:30:00")
    assert microseconds("no time") is None and microseconds(None) is None
    assert microseconds("1969-12-31T23:59:59Z") == -1_000_000


def test_what_a_policy_needs_of_documents() -> None:
    assert needed_columns("longest") == needed_columns(["first", "newest", "chars / 2"]) == []
    assert needed_columns("quality") == ["quality"]
    assert needed_columns(["log(b) * chars", "a == 'x'", "quality"]) == ["a", "b", "quality"]


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ([], "keep names no criterion"),
        ("sources", "keep: sources needs the list `sources`"),
        ("longest newest", "'longest newest' is no expression"),
        (["longest", "os.remove('x')"], "calls something else than abs, log"),
        ("url == 'http://a/'", "keep can't use the column 'url'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_one_sentence(keep, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")) as error:
        check_policy(keep, [])
    assert "\n" not in str(error.value)
