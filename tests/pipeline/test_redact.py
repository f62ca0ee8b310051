"""Tests that URLs shown to others contain no secret, and that no run accepts a URL with one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.redact import bare, has_secret, redact, walked

SECRET = "s3cr3t"
NAMES = st.text("abcxyz019._~-", min_size=1, max_size=6)


def test_redact_and_bare() -> None:
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


SECRETS = [
    "https://me:pw-1234@host.test/x.warc.gz",
    "https://ghp-1234@host.test/x.warc.gz",
    "s3://AKIA:pw-1234@bucket/x.warc.gz",
    "https://b.s3.amazonaws.com/x?X-Amz-Algorithm=A&X-Amz-Credential=AKIA%2F2026&X-Amz-Signature=pw-1234",
    "https://b.blob.core.windows.net/c/x?sv=2024&sig=pw-1234",
    "https://host.test/x?api_key=pw-1234",
    "https://host.test/x#access_token=pw-1234",
]
FREE = [
    "s3://bucket/crawl/*.warc.gz", "abfs://container@account.dfs.core.windows.net/crawl", "https://host.test/get?id=12&page=2",
    "hf://datasets/HuggingFaceFW/fineweb@main/x.parquet", "https://host.test/x?monkey=1&design=2",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_what_opens_a_url_is_seen(url: str) -> None:
    assert has_secret(url)


@pytest.mark.parametrize("url", FREE)
def test_what_opens_nothing_is_taken(url: str) -> None:
    assert not has_secret(url)


@pytest.mark.parametrize("place", ["input", "output", "recipe"])
def test_a_run_is_not_begun(corpusmill, tmp_path: Path, place: str) -> None:
    url = SECRETS[3]
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(f"ingest: {{url_filter: {{domains: ['{url}']}}}}\n" if place == "recipe" else "ingest: {}\n")
    given = {"input": (url, run), "output": (tmp_path, url), "recipe": (tmp_path, run)}[place]
    code, out, err = corpusmill("run", recipe, given[0], "--output", given[1])
    assert code == 2 and "carries credentials" in err and "***" in err
    assert "pw-1234" not in err + out.decode() and not run.exists()
