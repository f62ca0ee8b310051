"""Makes tiny models with random weights, and trains tokenizers, saved as transformers saves them."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

MODULES = ["argparse", "base64", "codecs", "datetime", "decimal", "json", "random", "string"]
LONGEST = 96


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    """Returns Python's own documentation: 1 to about 2,000 words."""
    texts = []
    for name in MODULES:
        module = importlib.import_module(name)
        texts.append(inspect.getdoc(module) or name)
        texts += [doc for _, member in sorted(vars(module).items()) if (doc := inspect.getdoc(member) if callable(member) else None)]
    return [*sorted(set(texts))[:120:3], "\n".join(texts)[:12000]]


@pytest.fixture(scope="session")
def hostile_texts() -> list[str]:
    """Returns hostile texts of a crawl: special tokens as text, control characters, one endless word."""
    return [
        "[SEP] [PAD] [PAD] [CLS] a </s> <pad> <|endoftext|>", "\x1b[31mred\x07 \u202ereversed\u202c", "\0a\0\0b", "x" * 10_000,
        "漢" * 2000, "ab " * 4000, "é\u0301" * 500, "😀👩‍👩‍👧 שלום عربي", " ", "\n\n\n", "\ufeff\u200b\u200d",
    ]  # fmt: skip


def _word_pieces(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=800, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=LONGEST, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def _byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=600, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        unk_token="<unk>",
    )  # fmt: skip


def _save(folder: Path, tokenizer: Any, kind: Any, config: Any, seed: int) -> str:
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():  # transformers' own initial weights give nearly equal scores to all texts
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, real_texts: list[str]) -> Callable[..., str]:
    """Returns `make_model(kind, **config)`: the folder of a new model: bert, roberta, gpt2, or bert without a head (`bare`)."""

    def make(kind: str, seed: int = 1, **more: Any) -> str:
        folder = tmp_path_factory.mktemp(f"{kind}-model")
        shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, **more}
        if kind == "roberta":
            tokenizer = _byte_pairs(real_texts)
            config: Any = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST + 2, pad_token_id=1, **shape)
            return _save(folder, tokenizer, RobertaForSequenceClassification, config, seed)
        tokenizer = _word_pieces(real_texts)
        if kind == "gpt2":
            config = GPT2Config(vocab_size=len(tokenizer), n_positions=LONGEST, n_embd=32, n_layer=1, n_head=2, pad_token_id=0, **more)
            tokenizer.model_input_names = ["input_ids", "attention_mask"]
            return _save(folder, tokenizer, GPT2ForSequenceClassification, config, seed)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST, **shape)
        return _save(folder, tokenizer, BertModel if kind == "bare" else BertForSequenceClassification, config, seed)

    return make


@pytest.fixture(scope="session")
def regression(make_model: Callable[..., str]) -> str:
    """Makes a model like FineWeb-Edu's classifier: BERT, one label, problem_type regression."""
    return make_model("bert", num_labels=1, problem_type="regression")


@pytest.fixture(scope="session")
def topics(make_model: Callable[..., str]) -> str:
    """Makes a RoBERTa with three labels."""
    return make_model("roberta", seed=2, id2label={0: "news", 1: "how to", 2: "shop"}, label2id={"news": 0, "how to": 1, "shop": 2})


@pytest.fixture(scope="session")
def toxicity(make_model: Callable[..., str]) -> str:
    """Makes a BERT whose labels may be true together."""
    names = {0: "insult", 1: "threat"}
    return make_model("bert", seed=3, id2label=names, label2id={"insult": 0, "threat": 1}, problem_type="multi_label_classification")
