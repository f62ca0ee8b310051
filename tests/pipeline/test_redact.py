"""URLs that others may see have no password and no signature, whatever stands around them."""

from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.redact import bare, redact, walked

SECRET = "s3cr3t"
NAMES = st.text("abcxyz019._~-", min_size=1, max_size=6)


def test_masked_and_bare() -> None:
    url = "https://me:pw@host.test:8080/a/x.warc.gz?X-Amz-Signature=abc==&part=1&bare#t=5"
    assert redact(f"from {url} on") == "from https://***@host.test:8080/a/x.warc.gz?X-Amz-Signature=***&part=***&***#t=*** on"
    assert bare(url) == "https://host.test:8080/a/x.warc.gz"
    for kept in ("s3://bucket/a b/x", "lists/mine.txt", "me@here.test", "why? because", "https://h.test/a#part", "<|endoftext|>"):
        assert redact(kept) == kept
    assert walked({"a": [url, 1, None]}, bare) == {"a": ["https://host.test:8080/a/x.warc.gz", 1, None]}


@given(st.sampled_from(["{u}:{s}@", "{s}@", "u:{s}@x@", ""]), NAMES, st.lists(st.sampled_from(["{s}", "k={s}", "k=={s}", "a=1", ""])))
def test_no_secret_is_left(user: str, host: str, query: list[str]) -> None:
    url = f"https://{user}{host}/p?{'&'.join(query)}".format(u="u", s=SECRET)
    for text in (url, f"{url}: can't be read", f"'{url}'"):
        assert SECRET not in redact(text) and SECRET not in bare(text) and f"{host}/p" in bare(text)


def test_a_long_text_without_spaces_is_no_work() -> None:
    text = "x" * 300_000
    assert redact(text) == text and redact(f"{text}://u:{SECRET}@h/") == f"{text}://***@h/"
