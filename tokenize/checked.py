"""Documents that kernels may read: they trust that text is there, and that it is UTF-8."""

import pyarrow as pa

from corpusmill.pipeline.errors import InputError


def checked(table: pa.Table, path: str, begin: int) -> pa.Table:
    """The table, whose first row is number `begin` of the shard `path`. Raises InputError where a document has no id or text, or one
    that is not valid UTF-8."""
    for name in ("id", "text"):
        if table[name].null_count:
            raise InputError(f"{path}: a document has no {name} (null).")
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        for name in table.column_names:
            for row in range(table.num_rows):
                try:
                    table[name].slice(row, 1).validate(full=True)
                except pa.ArrowInvalid:
                    raise InputError(f"{path}: row {begin + row} is not valid UTF-8 in the column {name}.") from error
        raise InputError(f"{path}: not a readable shard of documents ({error}).") from error
    return table
