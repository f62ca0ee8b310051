"""Opens token shards: those of a run, or of a set to which several runs were appended."""

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.names import instead_of
from corpusmill.pipeline.run import no_tokens
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import ShardSet, TokenShards, split_folders
from corpusmill.report.sources import leaves, other_run

TOKENIZER = "tokenizer/tokenizer.json"


def open_split(root: Storage, split: str) -> TokenShards:
    """Returns the token shards of a split. Raises InputError if there are none."""
    folders = split_folders(root)
    if split not in folders:
        missing = f"{root.root}: no token shards of the split {split!r}{instead_of(split, folders)}."
        raise InputError(missing if folders else no_tokens(root.root))
    return TokenShards(root.path(folders[split]))


def find_tokenizer(root: Storage, described: ShardSet) -> tuple[TokenBytes | None, str]:
    """Returns the tokenizer that made the tokens, from the root or from an appended run; where none fits, None and a phrase with the
    reason."""
    others = []
    for place in (root, *(other_run(root, run) for run in described.homes if not leaves(root.root, run))):
        if place.exists(TOKENIZER):
            table = TokenBytes.read(place, TOKENIZER)
            if table.sha256 == described.tokenizer_sha256:
                return table, ""
            others.append(f"{place.path(TOKENIZER)} is not the tokenizer that made these tokens")
    return None, others[0] if others else f"{root.path(TOKENIZER)} is not there"
