"""Small gzip files of web servers, in memory."""

import gzip
import io
import zlib

#: What a list of a crawl's files may decompress to (bytes); the largest have some 15 MB.
MOST_BYTES = 256 << 20


def gunzip(content: bytes, most: int = MOST_BYTES) -> bytes:
    """The content of a gzip file. Raises OSError where it is damaged, or holds more than `most` bytes: a megabyte may hold a gigabyte."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise OSError(f"it is no whole gzip file ({error})") from error
    if len(found) > most:
        raise OSError(f"it decompresses to more than {most:,} bytes")
    return found
