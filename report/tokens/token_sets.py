"""Token shards for people who look at them: those of a run, or of a set that runs were appended to."""

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.storage import Storage
from corpusmill.pipeline.token_bytes import TokenBytes
from corpusmill.pipeline.token_shards import SHARDS_FILE, SPLITS, ShardSet, TokenShards
from corpusmill.report.sources import leaves, other_run

TOKENIZER = "tokenizer/tokenizer.json"


def split_folders(root: Storage) -> dict[str, str]:
    """The folders of token shards by split, relative to the root: `tokens/train` in a run, `train` in a set."""
    for parent in ("tokens/", ""):
        found = {split: f"{parent}{split}" for split in SPLITS if root.exists(f"{parent}{split}/{SHARDS_FILE}")}
        if found:
            return found
    return {}


def open_split(root: Storage, split: str) -> TokenShards:
    """The token shards of a split. Raises InputError where there are none."""
    folders = split_folders(root)
    if split not in folders:
        hint = f"there are {', '.join(folders)}" if folders else f"run: corpusmill tokens {root.root}"
        raise InputError(f"{root.root}: no token shards of the split {split!r} ({hint}).")
    return TokenShards(root.path(folders[split]))


def homes(described: ShardSet) -> list[str]:
    """The other runs in which documents of a set lie."""
    return list(dict.fromkeys(shard.run for shard in described.shards if shard.run is not None))


def find_tokenizer(root: Storage, described: ShardSet) -> tuple[TokenBytes | None, str]:
    """The tokenizer that made the tokens, from the root or a run that was appended; else None and the reason, half a sentence."""
    others = []
    for place in (root, *(other_run(root, run) for run in homes(described) if not leaves(root.root, run))):
        if place.exists(TOKENIZER):
            table = TokenBytes.read(place, TOKENIZER)
            if table.sha256 == described.tokenizer_sha256:
                return table, ""
            others.append(f"{place.path(TOKENIZER)} is not the tokenizer that made these tokens")
    return None, others[0] if others else f"{root.path(TOKENIZER)} is not there"
