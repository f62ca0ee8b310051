"""Tests that URLs shown to others contain no secret, and that no run accepts a URL with one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.pipeline.cache import fetch
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.redact import bare, has_secret, redact, walked, without_secrets

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
    *(f"http://host.test/x.jsonl?a=1&{name}=pw-1234" for name in (
        "pwd", "hf_token", "client_secret", "X-Api-Key", "id_token", "refresh_token", "auth", "sas", "jwt", "token", "apikey", "access_key",
        "AWSAccessKeyId", "X-Goog-Signature", "X-Amz-Security-Token", "hftoken", "clientsecret", "accessToken", "sessionToken", "pass",
        "passwd", "userPassword", "PRIVATE-TOKEN", "private_key", "subscription-key", "code_signature", "Authorization", "bearer",
        "credentials", "PHPSESSID", "%74oken",
    )),
    "http://host.test/x.jsonl;token=pw-1234",
    "http://host.test/x.jsonl?a=1;token=pw-1234",
    "http://host.test/get?url=https%3A%2F%2Fhost.test%2Fx%3Ftoken%3Dpw-1234",
]  # fmt: skip
FREE = [
    "s3://bucket/crawl/*.warc.gz", "abfs://container@account.dfs.core.windows.net/crawl", "https://host.test/get?id=12&page=2",
    "hf://datasets/HuggingFaceFW/fineweb@main/x.parquet", "https://host.test/x?monkey=1&design=2&tokenizer=3&author=4&keyword=5&passage=6&session=7",
    "http://host.test/x;a=1", "s3://b/key=1/x",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_what_opens_a_url_is_seen(url: str) -> None:
    assert has_secret(url) and "pw-1234" not in redact(url) + without_secrets(f"{url}: no such file.")


@pytest.mark.parametrize("url", FREE)
def test_what_opens_nothing_is_taken(url: str) -> None:
    assert not has_secret(url) and without_secrets(f"{url}: no such file.") == f"{url}: no such file."


@pytest.mark.parametrize("place", ["input", "output", "recipe"])
def test_a_run_is_not_begun(corpusmill, tmp_path: Path, place: str) -> None:
    url = SECRETS[3]
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(f"ingest: {{url_filter: {{domains: ['{url}']}}}}\n" if place == "recipe" else "ingest: {}\n")
    given = {"input": (url, run), "output": (tmp_path, url), "recipe": (tmp_path, run)}[place]
    code, out, err = corpusmill("run", recipe, given[0], "--output", given[1])
    assert code == 2 and "carries credentials" in err and "***" in err
    assert "pw-1234" not in err + out.decode() and not run.exists()


def test_what_is_fetched_into_the_cache_has_none(corpusmill, tmp_path: Path) -> None:
    """The cache notes the URL of each file; and what is only looked at is shown without its secret."""
    with pytest.raises(InputError, match="carries credentials"):
        fetch(SECRETS[3])
    code, out, err = corpusmill("inspect", "http://127.0.0.1:9/x.jsonl?pwd=pw-1234")
    assert code and "pw-1234" not in err + out.decode() and "x.jsonl?pwd=***: no server answers at 127.0.0.1:9" in err
