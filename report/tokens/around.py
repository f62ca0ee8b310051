"""A token in its text, exact where tokens and characters do not end together."""

from dataclasses import dataclass

#: Bytes shown before and after, at most.
CONTEXT = 240


@dataclass(frozen=True)
class Around:
    """`before + characters + after` is a stretch of the text; `characters` are the whole ones that hold the token's bytes."""

    before: str
    characters: str
    after: str
    first: int  # the byte of the text at which the token begins
    raw: bytes  # the token's own

    @property
    def partial(self) -> bool:
        """Whether the token ends or begins inside a character."""
        return self.characters.encode("utf-8", "replace") != self.raw


def around(text: bytes, first: int, size: int, context: int = CONTEXT) -> Around:
    """The `size` bytes of UTF-8 at `first`, and up to `context` bytes on both sides. Bytes that are no UTF-8 become U+FFFD."""
    low, high = _boundary(text, first, -1), _boundary(text, first + size, 1) if size else first
    begin, end = _boundary(text, max(0, low - context), 1), _boundary(text, min(len(text), high + context), -1)
    parts = (text[begin:low], text[low:high], text[high:end])
    before, characters, after = (part.decode("utf-8", "replace") for part in parts)
    return Around(before, characters, after, first, text[first : first + size])


def _boundary(text: bytes, place: int, direction: int) -> int:
    """The nearest beginning of a character at `place` or before (-1) or after it (+1); the text's end counts as one."""
    while 0 < place < len(text) and text[place] & 0xC0 == 0x80:
        place += direction
    return place
