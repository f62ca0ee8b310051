"""Reads the output of the tokens stage, for tests."""

import pyarrow as pa

from corpusmill.pipeline.shards import read_table
from corpusmill.pipeline.token_shards import TokenShards
from corpusmill.tokenize.tokens_stage import TokensStage


def tokens_stage(**options):
    return TokensStage(TokensStage.Config(**options))


def splits(run, folder="tokens"):
    """Returns the token shards of a run, or of a set in `folder`."""
    return {split: TokenShards(run.path(f"{folder}/{split}")) for split in ("train", "validation")}


def content(run, folder="tokens"):
    """Returns the documents of both splits in order: id, and its tokens."""
    found = {}
    for split, shards in splits(run, folder).items():
        shards.verify()
        found[split] = [(a.id, shards.tokens(a.shard)[a.first : a.first + a.tokens].tolist()) for a in shards.documents_of(0, shards.total)]
    return found


def report(run):
    """Returns all rows of the stage's report."""
    names = sorted(path for path in run.list_files("tokens/report"))
    return pa.concat_tables(read_table(run, name) for name in names)
