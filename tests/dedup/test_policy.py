import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.dedup.policy import RANKED, microseconds, ranks

SCHEMA = pa.schema(
    {"id": pa.string(), "source": pa.string(), "offset": pa.int64(), "timestamp": pa.string(), "quality": pa.float64(),
     "chars": pa.int64(), "exact": pa.binary(16)}
)  # fmt: skip
TIMES = ["2024-01-01T00:00:00Z", "2024-01-01T01:30:00+02:00", "2024-01-01", "2023-12-31T23:59:59.5Z", "no time", None]
ROW = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abc"),
        "source": st.sampled_from("xy"),
        "offset": st.sampled_from([0, 9, 10, None]),
        "timestamp": st.sampled_from(TIMES),
        "quality": st.sampled_from([0.0, -1.0, 2.5, float("nan"), None]),
        "chars": st.integers(0, 3),
        "exact": st.sampled_from([b"\0" * 16, b"\xff" * 16]),
    }
)
assert list(SCHEMA.names) == list(RANKED)


def present(value, sign: int = 1):  # type: ignore[no-untyped-def]
    """A sort key that puts nothing last."""
    nothing = value is None or value != value
    return (nothing, 0 if nothing else sign * value if isinstance(value, int | float) else value)


def slow_key(row, keep: str):  # type: ignore[no-untyped-def]
    moment = microseconds(row["timestamp"])
    first = {
        "longest": -row["chars"],
        "quality": present(row["quality"], -1),
        "newest": present(moment, -1),
        "oldest": present(moment),
        "first": (row["source"], present(row["offset"])),
    }[keep]
    return first, row["id"], row["source"], present(row["offset"]), row["exact"]


@pytest.mark.parametrize("keep", ["longest", "quality", "newest", "oldest", "first"])
@settings(deadline=None, max_examples=40)
@given(rows=st.lists(ROW, max_size=8))
def test_ranks_are_a_stable_sort_by_policy_and_ties(keep, rows) -> None:  # type: ignore[no-untyped-def]
    order = sorted(range(len(rows)), key=lambda i: slow_key(rows[i], keep))
    assert np.argsort(ranks(pa.Table.from_pylist(rows, schema=SCHEMA), keep)).tolist() == order


def test_times_are_compared_as_moments() -> None:
    assert microseconds(TIMES[1]) == microseconds("2023-12-31T23:30:00Z") == microseconds("2023-12-31T23:30:00")
    assert microseconds("no time") is None and microseconds(None) is None
    assert microseconds("1969-12-31T23:59:59Z") == -1_000_000
