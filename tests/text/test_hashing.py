import numpy as np

from corpusmill.text.hashing import hash_span


def test_equal_spans_have_equal_hashes_and_others_differ_even_by_a_nul() -> None:
    data = np.frombuffer(b"abcdefghij-abcdefghij-abcdefghijk\0\0\0", np.uint8)
    assert hash_span(data, 0, 10) == hash_span(data, 11, 21)
    spans = [*(bytes(data[start:end]) for start in range(8) for end in range(start, 11)), b"k", b"k\0", b"k\0\0"]
    spans += [b"1a#", b"\x001a$", b"\x00\x001a%", b"\x00", b"\x00\x00"]
    hashes = {span: int(hash_span(np.frombuffer(span, np.uint8), 0, len(span))) for span in spans}
    assert len(set(hashes.values())) == len(hashes)
