"""The files of a tokenizer that every kind of it has."""

import json
from collections.abc import Mapping
from typing import Any

from corpusmill.pipeline.special_tokens import END_OF_TEXT, PAD

TOKENIZER_FILE = "tokenizer.json"
#: What transformers takes for "no limit"; the model's own configuration states its context.
NO_LIMIT = int(1e30)


def tokenizer_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """What transformers needs beside `tokenizer.json`, with the ids of special tokens; training adds the chat template."""
    special = sorted(ids, key=lambda token: ids[token])
    roles = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PAD}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{role: token for role, token in roles.items() if token in special},
        "extra_special_tokens": [token for token in special if token not in (END_OF_TEXT, PAD)],
        "model_max_length": NO_LIMIT,
        "clean_up_tokenization_spaces": False,
    }


def json_file(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
