import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.dedup import external_sort
from corpusmill.dedup.candidates import TASK_KEYS, ranges_for
from corpusmill.dedup.corpus import open_batches
from corpusmill.dedup.external_sort import BATCH_KEYS, MAX_RANGES, batch_ranges, keys_bytes, range_of, read_keys
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.shards import batches_buffer
from corpusmill.pipeline.storage import Storage

POWERS = st.integers(0, 7).map(lambda n: 2**n)
KEY = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**57, 2**57 - 1, 2**63 - 1, 2**63, 2**64 - 1])
in_tmp = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_tmp
@given(st.lists(KEY, max_size=60), POWERS, POWERS)
def test_each_key_is_read_once_whatever_the_ranges(tmp_path: Path, keys: list[int], batch: int, read: int) -> None:
    array = np.array(keys, np.uint64)
    rows = np.arange(len(keys), dtype=np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "BATCH_KEYS", batch)
        (tmp_path / "k.arrow").write_bytes(keys_bytes(array, array ^ np.uint64(5), rows))
    found = []
    for part in range(read):
        key, check, row = read_keys(Storage(str(tmp_path)), "k.arrow", part, read)
        assert all(k * read >> 64 == part for k in key.tolist())
        assert (check == key ^ np.uint64(5)).all() and row.dtype == np.int64
        found += list(zip(key.tolist(), row.tolist(), strict=True))
    assert sorted(found) == sorted(zip(keys, range(len(keys)), strict=True))


def test_ranges_are_equal_parts_of_the_numbers() -> None:
    keys = np.array([0, 2**48 - 1, 2**48, 2**63, 2**64 - 1], np.uint64)
    assert range_of(keys, 1).tolist() == [0] * 5
    assert range_of(keys, 2).tolist() == [0, 0, 0, 1, 1]
    assert range_of(keys, MAX_RANGES).tolist() == [0, 0, 1, 2**15, 2**16 - 1]


def test_ranges_are_as_many_as_a_task_can_sort() -> None:
    assert [ranges_for(keys) for keys in (0, 1, TASK_KEYS, TASK_KEYS + 1, 4 * TASK_KEYS)] == [1, 1, 1, 2, 4]
    assert ranges_for(10**15) == MAX_RANGES


def test_keys_are_in_batches_of_one_size_whatever_the_shard() -> None:
    assert [batch_ranges(keys) for keys in (0, 1, BATCH_KEYS, 2 * BATCH_KEYS - 1, 2 * BATCH_KEYS, 700_000)] == [1, 1, 1, 1, 2, 128]
    assert batch_ranges(10**12) == MAX_RANGES


def test_a_working_file_has_a_batch_for_each_table_and_names_itself_when_broken(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    tables = [pa.table({"n": values}, schema=schema) for values in ([1, 2], [], [3])]
    tables.append(pa.concat_tables([tables[0], tables[2]]))
    content = batches_buffer(schema, tables, "lz4").to_pybytes()
    (tmp_path / "f.arrow").write_bytes(content)
    with open_batches(Storage(str(tmp_path)), "f.arrow") as reader:
        assert [reader.get_batch(i)["n"].to_pylist() for i in range(reader.num_record_batches)] == [[1, 2], [], [3], [1, 2, 3]]
    for broken in (content[: len(content) // 2], os.urandom(100), b""):
        (tmp_path / "f.arrow").write_bytes(broken)
        with (
            pytest.raises(InputError, match=r"f\.arrow: (not a working file of this run|can't be read)"),
            open_batches(Storage(str(tmp_path)), "f.arrow"),
        ):
            pass
    with pytest.raises(InputError, match=r"none\.arrow: can't be read"), open_batches(Storage(str(tmp_path)), "none.arrow"):
        pass
