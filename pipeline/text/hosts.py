"""The host of each URL of a column."""

import pyarrow as pa
import pyarrow.compute as pc

_URL = r"^[a-z][a-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]*)"


def hosts(urls: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """In lower case, without user and port; null where the URL is null or no URL."""
    return pc.struct_field(pc.extract_regex(pc.utf8_lower(urls), _URL), "host")
