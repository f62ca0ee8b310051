"""Compares datatrove's files with those of its TokenizedFile."""

from datatrove.pipeline.tokens.tokenizer import TokenizedFile


def test_the_bytes_are_those_of_datatroves_writer(any_run, exported, tmp_path):
    folder = exported(any_run, "datatrove")
    for split in ("train", "validation"):
        shards, size = any_run.shards(split).shards, any_run.shards(split).dtype.itemsize
        for number, path in enumerate(sorted((folder / split).glob("*.ds"))):
            writer = TokenizedFile(
                str(tmp_path / split), path.name, tokenizer_name_or_path="tokenizer.json", save_final_metadata=True, token_size=size
            )
            for document in any_run.documents(split):
                if document.shard == number:
                    writer.write(document.ids.tolist(), None)
            writer.close()
            for end in ("", ".index", ".metadata"):
                assert (tmp_path / split / f"{path.name}{end}").read_bytes() == path.with_name(f"{path.name}{end}").read_bytes()
        assert number == len(shards) - 1
