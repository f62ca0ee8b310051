"""What all binary streams of a known length have in common that are read by position."""

import io
import os
from typing import Any


class Stream(io.RawIOBase):
    """Bytes from 0 to `size`, of which `position` is the next. A subclass has `read`."""

    def __init__(self, size: int):
        self.size = size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
