"""Ids and labels of packed conversations, against those with which TRL's SFTTrainer would train (`assistant_only_loss`)."""

import numpy as np
import pytest
from small_models import random_model

from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_folder import choose_chat
from corpusmill.train.checkpoint import save_model
from corpusmill.train.packing import IGNORED, pack
from corpusmill.train.sft_data import Example, prepare
from corpusmill.train.template import template_files
from corpusmill.train.vocabulary import prepared_folder

trl = pytest.importorskip("trl")

CONTEXT = 400
TURNS = {
    "s": ("system", "You grind grain. "),
    "u": ("user", " What is a mill,\n\nand why?"),
    "a": ("assistant", "It grinds größere Körner 谢谢.\n"),
}
ROLES = ["ua", "sua", "uaua", "suauaua", "au", "uua", "uaa", "uau", "ua" * 9, "u" * 19 + "a"]


def conversations() -> list[list[dict[str, str]]]:
    return [
        [{"role": TURNS[kind][0], "content": TURNS[kind][1] * (1 + (row + n) % 3)} for n, kind in enumerate(roles)]
        for row, roles in enumerate(ROLES)
    ]


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_ids_and_labels_are_those_of_trl(tmp_path, tokenizer_json, template):
    from datasets import Dataset

    save_model(random_model(vocab_size=600, context=CONTEXT), tmp_path / "m", {"tokenizer.json": tokenizer_json, **template_files(CONTEXT)})
    parent = Storage(str(tmp_path / "m"))
    encoder = choose_chat(parent, template)
    folder = prepared_folder(parent, encoder, tmp_path / "start")
    arguments = trl.SFTConfig(
        str(tmp_path), assistant_only_loss=True, max_length=CONTEXT + 1, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True
    )
    given = Dataset.from_list([{"messages": messages} for messages in conversations()])
    trainer = trl.SFTTrainer(folder.root, arguments, train_dataset=given)
    theirs = trainer.data_collator(list(trainer.train_dataset))

    prepared = [prepare(Example(str(n), None, "file", False, messages), encoder, CONTEXT) for n, messages in enumerate(conversations())]
    kept = [p.tokens for p in prepared if p.tokens]
    packed = pack(kept, CONTEXT)
    assert [p.truncated for p in prepared] == [len(roles) > 9 for roles in ROLES]
    assert prepared[-1].failed == ["too_long"]
    assert len(kept) == len(theirs["labels"]) == len(ROLES) - 1 and packed.n_rows < len(kept)
    for row, members in enumerate(packed.members):
        for segment, number in enumerate(members):
            length = int(theirs["attention_mask"][number].sum())
            here = packed.segments[row] == segment
            assert packed.ids[row][here].tolist() == theirs["input_ids"][number, : length - 1].tolist()
            assert packed.targets[row][here].tolist() == theirs["labels"][number, 1:length].tolist()
        assert (packed.targets[row][packed.segments[row] == len(members)] == IGNORED).all()
    assert np.count_nonzero(packed.targets != IGNORED) == int((theirs["labels"][:, 1:] != -100).sum())
