"""Tests token shards in a bucket, read through copies on this machine."""

import errno
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from token_sets import flat, random_documents, sha256_of, write_token_set

from corpusmill.pipeline import cache as caches
from corpusmill.pipeline.cache import ShardCache
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_shards import TokenShards

SHARDS = random_documents(5, 30, 60)


@pytest.fixture
def remote(s3, tmp_path: Path) -> SimpleNamespace:
    """Makes the set SHARDS in a bucket, and returns the folder from which it was uploaded."""
    url, folder = f"{s3.bucket('tokens')}/run/train", tmp_path / "set"
    write_token_set(folder, SHARDS, pack=(32,))
    s3.upload(folder, url)
    return SimpleNamespace(
        url=url,
        folder=folder,
        put=lambda name, body: s3.put(f"{url}/{name}", body),
        remove=lambda name: s3.client.delete_object(Bucket="tokens", Key=f"run/train/{name}"),
    )


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_bucket_equals_a_folder_and_is_read_once(remote, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    shards, local = TokenShards(remote.url, "f" * 64, cache=cache), TokenShards(remote.folder)
    assert not (tmp_path / "cache").exists()  # nothing is fetched before it is needed
    shards.map(range(5))
    assert shards.window(0, len(shards)).tolist() == flat(SHARDS) == local.window(0, len(local)).tolist()
    assert [shards.plan(n, 32).row.tolist() for n in range(5)] == [local.plan(n, 32).row.tolist() for n in range(5)]
    assert shards.locate(3, 7) == local.locate(3, 7)
    wanted = {shard.sha256 for shard in shards.shards} | {plan.sha256 for shard in shards.shards for plan in shard.plans}
    assert copies(tmp_path / "cache") == wanted
    assert all(sha256_of(tmp_path / "cache" / name) == name for name in wanted)
    for shard in shards.shards:
        remote.remove(shard.file)
    assert cache.use(shards.storage, shards.shards[0].file, 2 * shards.shards[0].tokens, shards.shards[0].sha256, Path).exists()
    with pytest.raises(InputError, match=r"s3://tokens/run/train/tokens-00000\.bin: this token shard is missing"):
        TokenShards(remote.url, cache=cache)


def check_refused(shards: TokenShards, folder: Path, sentence: str) -> None:
    with pytest.raises(InputError, match=r"s3://tokens/run/train/tokens-00002\.bin: " + sentence) as caught:
        shards.map(range(5))
    assert "\n" not in str(caught.value)
    assert shards.shards[2].sha256 not in copies(folder) and not any(name.endswith(".part") for name in copies(folder))


def test_an_object_that_is_not_the_one_is_a_sentence_and_leaves_nothing(remote, tmp_path: Path) -> None:
    whole = (remote.folder / "tokens-00002.bin").read_bytes()
    remote.put("tokens-00002.bin", whole[:-4] + b"\1\2\3\4")
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache"))
    check_refused(shards, tmp_path / "cache", r"this file is not the one that was written \(its sha256 differs\)")
    remote.put("tokens-00002.bin", whole[:-4])  # while the set is open
    check_refused(shards, tmp_path / "cache", r"this file is cut short \([\d,]+ bytes are expected\)")
    remote.remove("tokens-00002.bin")
    check_refused(shards, tmp_path / "cache", "(no such file|can't be read)")


def test_the_least_recently_used_copies_make_room(remote, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    description = TokenShards(remote.url, cache=ShardCache(folder)).description
    sizes = [2 * shard.tokens for shard in description.shards]
    shards = TokenShards(remote.url, cache=ShardCache(folder, limit=sizes[0] + sizes[1] + max(sizes[2:])))
    first = shards.tokens(0)
    shards.map([1])
    for number, shard in enumerate(description.shards[:2]):
        os.utime(folder / shard.sha256, ns=(number, number))
    TokenShards(remote.url, cache=shards._cache).tokens(0)  # used again
    shards.tokens(2)
    assert copies(folder) == {shard.sha256 for shard in description.shards[:3]}
    shards.tokens(3)
    kept = copies(folder)
    assert description.shards[1].sha256 not in kept and description.shards[3].sha256 in kept
    assert sum((folder / name).stat().st_size for name in kept) <= shards._cache.limit  # type: ignore[union-attr]
    for number in range(5):
        shards.tokens(number)
    assert first.tolist() == flat(SHARDS[:1])  # still mapped
    assert TokenShards(remote.url, cache=shards._cache).window(0, len(shards)).tolist() == flat(SHARDS)


def test_a_file_larger_than_the_cache_and_a_full_disk_are_sentences(remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache", limit=100))
    with pytest.raises(InputError, match=r"are more than the cache .* may hold \(CORPUSMILL_SHARD_CACHE_GB sets how much\)"):
        shards.tokens(0)

    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    shards = TokenShards(remote.url, cache=ShardCache(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"tokens-00000\.bin: can't be copied to .*cache \(No space left on device\)"):
        shards.tokens(0)
    assert copies(tmp_path / "cache") == set()


def test_a_set_can_not_name_files_outside_the_cache(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(InputError, match="names no sha256"):
        ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", 1, "../a", Path)


def _fetch(folder: str, cache: str, sha256: str, size: int, started, results) -> None:  # type: ignore[no-untyped-def]
    started.wait()
    found = ShardCache(cache).use(Storage(folder), "a", size, sha256, lambda path: Path(path).read_bytes())
    results.put(len(found))


def test_processes_that_need_one_file_download_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All start together; later ones wait and find the copy. Downloads are counted by their lines in a log."""
    (tmp_path / "a").write_bytes(np.random.default_rng(0).bytes(3_000_000))
    whole = caches._copy_checked

    def logged(storage, relative, file, size, sha256):  # type: ignore[no-untyped-def]
        with open(tmp_path / "log", "a") as log:
            log.write("x")
        whole(storage, relative, file, size, sha256)

    monkeypatch.setattr(caches, "_copy_checked", logged)
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    arguments = (str(tmp_path), str(tmp_path / "cache"), sha256_of(tmp_path / "a"), 3_000_000, started, results)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    started.set()
    assert [results.get(timeout=60) for _ in processes] == [3_000_000] * 6
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "x"
    assert copies(tmp_path / "cache") == {sha256_of(tmp_path / "a")}


def test_what_a_killed_process_left_is_removed_and_what_another_downloads_is_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    (cache / ("1" * 64 + ".part")).write_bytes(b"left")
    os.utime(cache / ("1" * 64 + ".part"), (1, 1))
    (cache / ("2" * 64 + ".part")).write_bytes(b"under way")
    (cache / (sha256_of(tmp_path / "a") + ".part")).write_bytes(b"left by who downloaded the same")
    ShardCache(cache).use(Storage(str(tmp_path)), "a", 3, sha256_of(tmp_path / "a"), Path)
    assert copies(cache) == {"2" * 64 + ".part", sha256_of(tmp_path / "a")}


@pytest.mark.parametrize("copy", [b"a", b"abb"], ids=["size", "bit"])
def test_a_damaged_copy_is_fetched_again(tmp_path: Path, copy: bytes) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    name = sha256_of(tmp_path / "a")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).write_bytes(copy)
    found = ShardCache(tmp_path / "cache").use(Storage(str(tmp_path)), "a", 3, name, lambda path: Path(path).read_bytes())
    assert found == b"abc"
