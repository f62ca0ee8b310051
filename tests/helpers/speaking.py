"""A model folder that can generate text: random weights and a tokenizer of bytes, with some words merged."""

from pathlib import Path

from small_models import random_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpusmill.pipeline.special_tokens import SPECIAL_TOKENS
from corpusmill.train.checkpoint import save_model
from corpusmill.train.template import template_files

TEXT = "the cat sat on the mat, größe 東京 🙂"
VOCABULARY = 280


def byte_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def speaking_folder(folder: Path, template: bool = True, **changes: object) -> Path:
    """Returns the folder of a random model, with a chat template on request."""
    model = random_model(**{"vocab_size": VOCABULARY, "layers": 2, "width": 32, "head_dim": 8, "ffn": 48, "context": 128, **changes})
    files = template_files(model.arch.context) if template else {}
    save_model(model, folder, {"tokenizer.json": byte_tokenizer().to_str().encode(), **files})
    return folder
