"""datatrove (and nanotron): a `.ds` file a token shard, with `.ds.index` and `.ds.metadata` beside it."""

from pathlib import Path
from typing import ClassVar

import humanize

from corpusmill.tokenize.export.format import Format
from corpusmill.tokenize.export.source import Source


class Datatrove(Format):
    """As `datatrove.pipeline.tokens.tokenizer.TokenizedFile` writes them: the index holds the end of each document in tokens
    (uint64); the metadata are the tokenizer's name and the bytes of a token, the tokens, and the tokens for people."""

    wide: ClassVar[str] = "uint32"

    def write(self, source: Source, folder: Path) -> None:
        (folder / source.split).mkdir()
        for number, shard in enumerate(source.description.shards):
            path = folder / source.split / f"{number:05d}_tokens.ds"
            with open(path, "wb") as tokens, open(f"{path}.index", "wb") as index:
                first = 0
                for stretch in source.stretches(number):
                    tokens.write(stretch.tokens.data)
                    index.write((first + stretch.ends()).astype("<u8").data)
                    first += len(stretch.tokens)
            lines = (f"tokenizer.json|{source.dtype.itemsize}", str(shard.tokens), humanize.metric(shard.tokens, unit="T"))
            Path(f"{path}.metadata").write_text("\n".join(lines))
