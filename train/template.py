"""Conversations as text and as tokens: the chat template that a model folder carries, and what of it is learned.

The template is Jinja2 in the dialect of `transformers` (`{% generation %}` marks what the assistant says), so the
folder's `apply_chat_template` gives the same text. Rendering is sandboxed, as a template may come from a stranger.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END, PAD, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage

Message = Mapping[str, str]

#: ChatML. Contents are trimmed, so that a turn's first token never merges with the line break before it: what a
#: model is asked to continue is then exactly the beginning of what it was trained on. The end token is the
#: assistant's own; the line break after it is not.
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{{- '\\n' }}"
    "{%- else %}"
    "{{- message['content'] | trim + '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

# Unicode noncharacters, meant for a program's internal use: they mark places inside rendered text. Where a
# conversation holds one it is replaced, as Unicode allows.
_LEARN, _STOP, _LITERAL = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile(f"[{_LEARN}{_STOP}{_LITERAL}]")
_SPECIAL = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
_SPLIT = re.compile(f"({_SPECIAL.pattern}|{_LEARN}|{_STOP})")


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation: plain text or one special token, learned or not."""

    text: str
    special: bool
    learned: bool


@dataclass(frozen=True)
class Encoded:
    """`ids` and `mask` of one conversation: int32 and bool, both [tokens]; the mask is on what is to be learned."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


def template_files(model_max_length: int, source: str = CHATML, end_token: str = IM_END) -> dict[str, bytes]:
    """The files beside `tokenizer.json` that make `transformers` load the tokenizer with this template.

    `end_token` is what ends a generation: `<|endoftext|>` for a pre-trained model, `<|im_end|>` for one that talks.
    """
    config = {
        "add_bos_token": False,
        "added_tokens_decoder": {
            str(number): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for number, token in enumerate(SPECIAL_TOKENS)
        },
        "bos_token": END_OF_TEXT,
        "chat_template": source,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_token,
        "model_max_length": model_max_length,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return {TEMPLATE_FILE: source.encode(), TOKENIZER_CONFIG_FILE: text.encode()}


class ChatTemplate:
    """A compiled template. Raises `InputError` where it does not compile."""

    def __init__(self, source: str = CHATML, name: str = "chat template", special: Mapping[str, str] | None = None):
        self.source = source
        self.name = name
        self.special = dict(special or {"bos_token": END_OF_TEXT, "eos_token": IM_END, "pad_token": PAD})
        self._template = _compile(source, name)

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """The conversation as text, equal to `apply_chat_template(..., tokenize=False)`."""
        clean = [{key: _MARKS.sub("\ufffd", value) for key, value in message.items()} for message in messages]
        return _MARKS.sub("", self._render(clean, add_generation_prompt))

    def pieces(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[Piece]:
        """The rendered conversation cut at special tokens and at the borders of what is learned.

        The name of a special token inside a message is plain text: only the template makes special tokens.
        """
        literal = [{key: _literal(value) for key, value in message.items()} for message in messages]
        pieces, learned = [], False
        for part in _SPLIT.split(self._render(literal, add_generation_prompt)):
            if part in (_LEARN, _STOP):
                learned = part == _LEARN
            elif part:
                pieces.append(Piece(part.replace(_LITERAL, ""), part in SPECIAL_TOKENS, learned))
        return pieces

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            return str(self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self.special))
        except jinja2.TemplateError as error:
            raise InputError(f"{self.name}: the conversation can't be rendered ({error}).") from error


def _literal(text: str) -> str:
    """`text` with a mark inside every special token's name, so that it is not taken for the token."""
    return _SPECIAL.sub(lambda match: match[0][0] + _LITERAL + match[0][1:], _MARKS.sub("\ufffd", text))


def _compile(source: str, name: str) -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}`: its output between two marks."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

        def mark(self, caller: Any) -> str:
            return _LEARN + str(caller()) + _STOP

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{name}:{error.lineno}: not a valid chat template ({error.message}).") from error


class ChatEncoder:
    """A tokenizer with its template: conversations to token ids and the mask of what is learned."""

    def __init__(self, tokenizer_json: bytes, template: ChatTemplate, name: str = "tokenizer.json"):
        from tokenizers import Tokenizer

        self.tokenizer_json = tokenizer_json
        try:
            self.tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        except Exception as error:  # the library raises nothing more special
            raise InputError(f"{name}: not a tokenizer ({error}).") from error
        self.tokenizer.encode_special_tokens = True  # names of special tokens in a text are text
        self.template = template
        self.special_ids: dict[str, int] = {}
        for token in SPECIAL_TOKENS:
            number = self.tokenizer.token_to_id(token)
            if number is None:
                raise InputError(f"{name}: has no token {token}, which conversations need.")
            self.special_ids[token] = number

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Encoded:
        """The tokens of a conversation; nothing is added before or after what the template writes."""
        ids: list[int] = []
        mask: list[bool] = []
        for piece in self.template.pieces(messages, add_generation_prompt):
            new = [self.special_ids[piece.text]] if piece.special else self.encode_text(piece.text)
            ids += new
            mask += [piece.learned] * len(new)
        return Encoded(np.array(ids, np.int32), np.array(mask, np.bool_))

    def encode_text(self, text: str) -> list[int]:
        """The ids of plain text; never a special token, whatever the text says."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; special tokens are left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the tokenizer and the template: what decides the tokens of a conversation."""
        return digest([hashlib.sha256(self.tokenizer_json).hexdigest(), self.template.source])


def load_chat(model: Storage) -> ChatEncoder:
    """The tokenizer and template of a model folder; ChatML where the folder has no template."""
    where = model.path("tokenizer.json")
    if not model.exists("tokenizer.json"):
        raise InputError(f"{where}: no such file; a model folder carries its tokenizer.")
    source, special = CHATML, None
    if model.exists(TOKENIZER_CONFIG_FILE):
        try:
            config = json.loads(model.read_bytes(TOKENIZER_CONFIG_FILE))
        except ValueError as error:
            raise InputError(f"{model.path(TOKENIZER_CONFIG_FILE)}: not JSON ({error}).") from error
        special = {key: config[key] for key in ("bos_token", "eos_token", "pad_token") if isinstance(config.get(key), str)}
        source = config.get("chat_template") or source
    if model.exists(TEMPLATE_FILE):
        source = model.read_bytes(TEMPLATE_FILE).decode()
    return ChatEncoder(model.read_bytes("tokenizer.json"), ChatTemplate(source, model.path(TEMPLATE_FILE), special), where)
