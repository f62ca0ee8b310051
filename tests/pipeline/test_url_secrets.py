"""No run takes a URL that carries credentials, and no sentence repeats them."""

from pathlib import Path

import pytest

from corpusmill.pipeline.redact import has_secret

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
@pytest.mark.parametrize("url", [SECRETS[0], SECRETS[3]])
def test_a_run_is_not_begun(corpusmill, tmp_path: Path, url: str, place: str) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(f"ingest: {{url_filter: {{domains: ['{url}']}}}}\n" if place == "recipe" else "ingest: {}\n")
    given = {"input": (url, run), "output": (tmp_path, url), "recipe": (tmp_path, run)}[place]
    code, out, err = corpusmill("run", recipe, given[0], "--output", given[1])
    assert code == 2 and "carries credentials" in err and "***" in err
    assert "pw-1234" not in err + out.decode() and not run.exists()
