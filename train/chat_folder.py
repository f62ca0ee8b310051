"""The template and tokenizer that a tuning trains with, whether it can teach anything, and the files that a model folder carries of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID, IM_END, IM_END_ID, PAD, PAD_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_templates import NAMED
from corpusmill.train.conversation import assistant_turn, user_turn
from corpusmill.train.template import (
    TOKENIZER_CONFIG_FILE,
    ChatEncoder,
    ChatTemplate,
    TemplateRefusal,
    load_chat,
    read_template,
    template_files,
    token_name,
)

#: A conversation by which a template is judged.
PROBE = (user_turn("What is a mill?"), assistant_turn("A machine that grinds."))
_CHOICE = "choose sft.template: chatml or llama3"
_ADVICE = f"write its content and end token between {{% generation %}} and {{% endgeneration %}}, or {_CHOICE}"


def choose_chat(model: Storage, template: str = "keep") -> ChatEncoder:
    """The tokenizer and template of a model folder, its own (`keep`), with a template of NAMED and its tokens, or with that of a file."""
    own = load_chat(model)
    if template == "keep":
        return own
    if template not in NAMED:
        folder, _, name = template.rpartition("/")
        source = read_template(Storage(folder or "."), name)
        return ChatEncoder(own.tokenizer_json, ChatTemplate(source, template, own.template.special))
    named, special = NAMED[template], own.template.special
    tokens = [*named.tokens]
    if special.get("pad_token", named.end) in (named.end, special.get("eos_token")):  # a pad token of its own
        tokens.append(PAD)
        special = {**special, "pad_token": PAD}
    if named.bos:
        special = {**special, "bos_token": named.bos}
    made = ChatTemplate(named.source, f"the template {template}", {**special, "eos_token": named.end})
    return ChatEncoder(add_special_tokens(own.tokenizer_json, tokens), made)


def add_special_tokens(tokenizer_json: bytes, tokens: list[str]) -> bytes:
    """A `tokenizer.json` that has these special tokens, too; those that it lacks get the next ids, in this order."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [AddedToken(token, special=True, normalized=False) for token in tokens if token not in there]
    if not missing:
        return tokenizer_json
    tokenizer.add_special_tokens(missing)
    return str(tokenizer.to_str(pretty=True)).encode()


def require_learnable(encoder: ChatEncoder) -> None:
    """Refuses a template under which nothing, or the wrong thing, would be learned, and a pad token that ends answers."""
    end = end_of_answers(encoder)
    if encoder.template.special.get("pad_token") == end:
        raise InputError(
            f"{encoder.template.name}: answers end with {end}, which is the tokenizer's pad token, too, and padding is never learned "
            "(give tokenizer_config.json a pad_token of its own, or choose sft.template: chatml or llama3, which bring one)."
        )


def end_of_answers(encoder: ChatEncoder) -> str:
    """The special token that ends what the assistant says. Raises InputError where the template does not mark that and nothing else."""
    template = encoder.template
    question, answer = (message["content"] for message in PROBE)
    try:
        pieces = [piece for piece in template.pieces(PROBE) if piece.learned]
    except TemplateRefusal as refusal:
        raise InputError(f"{str(refusal).removesuffix('.')}; {_CHOICE}.") from refusal
    text = "".join(piece.text for piece in pieces)
    if answer not in text:
        raise InputError(f"{template.name}: marks nothing that the assistant says, so nothing can be learned ({_ADVICE}).")
    if question in text:
        raise InputError(f"{template.name}: marks what the user says, so questions would be learned ({_ADVICE}).")
    last = next(piece for piece in reversed(pieces) if piece.text.strip())
    if not last.special:
        raise InputError(f"{template.name}: marks no special token at the end of an answer, so a model would never stop ({_ADVICE}).")
    return last.text


def seam(encoder: ChatEncoder) -> list[str]:
    """A warning where a prompt's tokens are not the beginning of the whole conversation's: what is asked later is not what was learned."""
    prompt, whole = encoder.encode(PROBE[:1], add_generation_prompt=True).ids.tolist(), encoder.encode(PROBE).ids.tolist()
    if whole[: len(prompt)] == prompt:
        return []
    return [
        f"{encoder.template.name}: a prompt's tokens are not the beginning of the whole conversation's, as the tokenizer cuts line breaks "
        "otherwise once an answer follows them, so a model is asked in another way than it learned "
        "(tokenizer.pattern cl100k, o200k and llama3 do not, nor does the template chatml)."
    ]


def chat_files(encoder: ChatEncoder, context: int) -> dict[str, bytes]:
    """The tokenizer's files of a model that talks, by name. Its `eos_token` is what ends answers, but where the template writes `eos_token`
    it stays what it was, as the text would be another."""
    template = encoder.template
    end = template.special.get("eos_token") if "eos_token" in template.source else None
    added: list[Mapping[str, Any]] = json.loads(encoder.tokenizer_json)["added_tokens"]
    files = template_files(context, template.source, end or end_of_answers(encoder), template.special, added)
    return {"tokenizer.json": encoder.tokenizer_json, **files}


@dataclass(frozen=True)
class TokenIds:
    """What `config.json` and `generation_config.json` say of a tokenizer: `ends` are all ids that end a text."""

    bos: int | None
    eos: int | None
    pad: int | None
    ends: list[int]


def token_ids(files: Mapping[str, bytes]) -> TokenIds:
    """The ids of the special tokens that the files of a tokenizer name; those of our own tokenizers where nothing is named."""
    if not {"tokenizer.json", TOKENIZER_CONFIG_FILE} <= files.keys():
        return TokenIds(EOT_ID, EOT_ID, PAD_ID, [EOT_ID, IM_END_ID])
    tokenizer, config = (json.loads(files[name]) for name in ("tokenizer.json", TOKENIZER_CONFIG_FILE))
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    bos, eos, pad = (ids.get(token_name(config.get(name))) for name in ("bos_token", "eos_token", "pad_token"))
    ends = {number for number in (ids.get(END_OF_TEXT), ids.get(IM_END), eos) if number is not None}
    return TokenIds(bos, eos, pad, sorted(ends))
