"""A model that gets rows for new tokens, against transformers' resize, and as a folder in which everything agrees."""

import json

import pytest
import torch
from small_models import random_ids, random_model

from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_folder import choose_chat
from corpusmill.train.checkpoint import load_model, save_model
from corpusmill.train.template import load_chat, template_files
from corpusmill.train.vocabulary import grown, prepared_folder

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_are_the_mean_as_transformers_has_it(tmp_path, tied):
    model = random_model(tied=tied)
    save_model(model, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    theirs.resize_token_embeddings(101, mean_resizing=True)
    ours = grown(model, [97, 98, 99, 100])
    assert ours.arch.vocab_size == 101 and (ours.lm_head.weight is ours.model.embed_tokens.weight) is tied
    for new, old, peer in ((ours.model.embed_tokens, model.model.embed_tokens, theirs.get_input_embeddings()),
                           (ours.lm_head, model.lm_head, theirs.get_output_embeddings())):  # fmt: skip
        assert torch.equal(new.weight[:97], old.weight)
        torch.testing.assert_close(new.weight[97:], peer.weight[97:], rtol=0, atol=1e-4)  # theirs is drawn from around the mean
    ids = random_ids((2, 9))
    logits = ours(ids)
    torch.testing.assert_close(logits[..., :97], model(ids))
    torch.testing.assert_close(logits[..., 97:], model(ids).mean(-1, keepdim=True).expand(-1, -1, 4), rtol=1e-4, atol=1e-5)


def test_spare_rows_are_used_and_set():
    model = random_model()
    ours = grown(model, [95, 96])
    assert ours.arch.vocab_size == 97 and torch.equal(ours.lm_head.weight[:95], model.lm_head.weight[:95])
    torch.testing.assert_close(ours.lm_head.weight[95:], model.lm_head.weight[:95].mean(0).expand(2, -1))
    assert grown(model, []) is model


@pytest.mark.parametrize(("tied", "rows"), [(False, 0), (True, 0), (False, 40)])
def test_the_folder_opens_in_transformers_and_its_files_agree(tmp_path, tokenizer_json, tied, rows):
    """`rows`: how many the embedding has beyond the tokenizer's tokens."""
    size = len(json.loads(tokenizer_json)["model"]["vocab"])
    files = {"tokenizer.json": tokenizer_json, **template_files(64, end_token="<|endoftext|>")}
    save_model(random_model(vocab_size=size + rows, tied=tied), tmp_path / "parent", files)
    parent = Storage(str(tmp_path / "parent"))
    assert prepared_folder(parent, load_chat(parent), tmp_path / "none") is parent
    folder = prepared_folder(parent, choose_chat(parent, "llama3"), tmp_path / "start")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder.root)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.root)
    begin, end = size, size + 3
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (begin, end, 1, size + 4)
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (begin, end, 1)
    assert (model.generation_config.bos_token_id, model.generation_config.eos_token_id) == (begin, [0, 3, end])
    assert model.config.vocab_size == size + max(rows, 4) and model.config.tie_word_embeddings is tied
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Mill?"}], add_generation_prompt=True, return_tensors="pt")[
        "input_ids"
    ]
    torch.testing.assert_close(load_model(folder.root)(ids), model(ids).logits, rtol=1e-4, atol=1e-4)
    assert load_chat(folder).encode([{"role": "user", "content": "Mill?"}], True).ids.tolist() == ids[0].tolist()
