"""Conversations as text and as tokens: the chat template that a model folder carries, and what of it is learned.

The template is Jinja2 in the dialect of `transformers` (`{% generation %}` marks what the assistant says), so the
folder's `apply_chat_template` gives the same text. Rendering is sandboxed, as a template may come from a stranger.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.config import digest
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import END_OF_TEXT, IM_END, PAD, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_templates import CHATML

Message = Mapping[str, str]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

# Unicode noncharacters, meant for a program's internal use: they mark places inside rendered text. Where a
# conversation holds one it is replaced, as Unicode allows.
_LEARN, _STOP, _LITERAL = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile(f"[{_LEARN}{_STOP}{_LITERAL}]")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusal(InputError):
    """A template that does not take a conversation, or whose answers can't be told in it."""


@dataclass(frozen=True)
class TextPiece:
    """A stretch of a rendered conversation: plain text or one special token, learned or not."""

    text: str
    special: bool
    learned: bool


@dataclass(frozen=True)
class Encoded:
    """`ids` and `mask` of one conversation: int32 and bool, both [tokens]; the mask is on what is to be learned."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


def template_files(
    model_max_length: int,
    source: str = CHATML,
    end_token: str = IM_END,
    special: Mapping[str, str] | None = None,
    added: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """The files beside `tokenizer.json` that make `transformers` load the tokenizer with this template.

    `end_token` is what ends a generation: `<|endoftext|>` for a pre-trained model, `<|im_end|>` for one that talks. `special` are
    other tokens by name (`bos_token`, ...), `added` the added tokens of `tokenizer.json`; without them they are ours.
    """
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokens = added or [{"id": number, "content": token, **plain} for number, token in enumerate(SPECIAL_TOKENS)]
    config = {
        **(special or {"bos_token": END_OF_TEXT, "pad_token": PAD}),
        "add_bos_token": False,
        "added_tokens_decoder": {str(token["id"]): {key: token[key] for key in ("content", *plain)} for token in tokens},
        "chat_template": source,
        "clean_up_tokenization_spaces": False,
        "eos_token": end_token,
        "model_max_length": model_max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return {TEMPLATE_FILE: source.encode(), TOKENIZER_CONFIG_FILE: text.encode()}


class ChatTemplate:
    """A compiled template. Raises `InputError` where it does not compile.

    `special` are the tokens by the names that a template may call them (`bos_token`, ...), `tokens` all special tokens of the
    tokenizer. A template without `{% generation %}` marks by a rule: an answer is what follows its generation prompt, up to the
    last special token of the turn.
    """

    def __init__(
        self,
        source: str = CHATML,
        name: str = "chat template",
        special: Mapping[str, str] | None = None,
        tokens: Iterable[str] = SPECIAL_TOKENS,
    ):
        self.source = source
        self.name = name
        self.special = dict(special or {"bos_token": END_OF_TEXT, "eos_token": IM_END, "pad_token": PAD})
        self.tokens = frozenset(tokens)
        self.marks_answers = _GENERATION.search(source) is not None
        names = "|".join(re.escape(token) for token in sorted(self.tokens, key=lambda token: (-len(token), token)))
        self._special = re.compile(names or "(?!)")
        self._split = re.compile(f"({self._special.pattern}|{_LEARN}|{_STOP})")
        self._template = _compile(source, name)

    def pieces(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[TextPiece]:
        """The rendered conversation cut at special tokens and at the borders of what is learned; joined, the text equals
        `apply_chat_template(..., tokenize=False)`.

        The name of a special token inside a message is plain text: only the template makes special tokens.
        """
        literal = [{key: self._literal(value) for key, value in message.items()} for message in messages]
        text = self._render(literal, add_generation_prompt)
        if not self.marks_answers:
            text = self._mark_answers(literal, text)
        pieces, learned = [], False
        for part in self._split.split(text):
            if part in (_LEARN, _STOP):
                learned = part == _LEARN
            elif part:
                pieces.append(TextPiece(part.replace(_LITERAL, ""), part in self.tokens, learned))
        return pieces

    def _mark_answers(self, messages: list[dict[str, str]], whole: str) -> str:
        """`whole` with marks around each answer, found by rendering the conversation up to it and with it."""
        parts, place = [], 0
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt, turn = self._render(messages[:number], True), self._render(messages[: number + 1], False)
            end = max((match.end() for match in self._special.finditer(turn, len(prompt))), default=0)
            if not turn.startswith(prompt) or not end or not whole.startswith(turn[:end]):
                raise TemplateRefusal(
                    f"{self.name}: marks nothing that the assistant says, and message {number + 1} can't be told from the rest, as it does "
                    "not follow the generation prompt or no special token ends it."
                )
            parts += [whole[place : len(prompt)], _LEARN, whole[len(prompt) : end], _STOP]
            place = end
        return "".join([*parts, whole[place:]])

    def _literal(self, text: str) -> str:
        """`text` with a mark inside every special token's name, so that it is not taken for the token."""
        return self._special.sub(lambda match: match[0][0] + _LITERAL + match[0][1:], _MARKS.sub("\ufffd", text))

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            return str(self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self.special))
        except (RecursionError, MemoryError) as error:  # of a macro that calls itself, of a text without an end
            raise TemplateRefusal(f"{self.name}: the conversation can't be rendered ({type(error).__name__}).") from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TemplateRefusal(f"{self.name}: the conversation can't be rendered ({error}).") from error


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

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{name}:{error.lineno}: not a valid chat template ({error.message}).") from error
    except (RecursionError, MemoryError, SyntaxError) as error:  # of Python's compiler, which takes twenty loops inside each other
        raise InputError(f"{name}: not a valid chat template (it is nested too deeply).") from error


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
        #: Special tokens by name.
        self.special_ids = {token.content: number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.template = ChatTemplate(template.source, template.name, template.special, self.special_ids)

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Encoded:
        """The tokens of a conversation; nothing is added before or after what the template writes.

        Text between two special tokens is encoded in one piece, as `transformers` does it, also where an answer begins in it. A token
        that lies on a border of what is learned is learned.
        """
        return self.encode_pieces(self.template.pieces(messages, add_generation_prompt))

    def encode_pieces(self, written: Iterable[TextPiece]) -> Encoded:
        """The same of what the template wrote, or of a part."""
        ids: list[int] = []
        masks = [np.zeros(0, np.bool_)]
        for special, group in groupby(written, key=lambda piece: piece.special):
            pieces = list(group)
            if special:
                ids += [self.special_ids[piece.text] for piece in pieces]
                masks.append(np.array([piece.learned for piece in pieces], np.bool_))
            else:
                encoding = self.tokenizer.encode("".join(piece.text for piece in pieces), add_special_tokens=False)
                ids += encoding.ids
                masks.append(_learned(pieces, encoding))
        return Encoded(np.array(ids, np.int32), np.concatenate(masks))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the tokenizer and the template: what decides the tokens of a conversation."""
        return digest([hashlib.sha256(self.tokenizer_json).hexdigest(), self.template.source, sorted(self.template.special.items())])


def _learned(pieces: Sequence[TextPiece], encoding: Any) -> npt.NDArray[np.bool_]:
    """Which tokens of a text hold a character that is learned, [tokens]."""
    if len(pieces) == 1:
        return np.full(len(encoding.ids), pieces[0].learned)
    learned = np.concatenate([[0], np.cumsum(np.concatenate([np.full(len(piece.text), piece.learned) for piece in pieces]))])
    begin, end = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
    return learned[np.minimum(np.maximum(end, begin + 1), len(learned) - 1)] > learned[begin]


def load_chat(model: Storage) -> ChatEncoder:
    """The tokenizer and template of a model folder; ChatML where the folder has no template."""
    where = model.path("tokenizer.json")
    if not model.exists("tokenizer.json"):
        raise InputError(f"{where}: no such file; a model folder carries its tokenizer.")
    source, special = CHATML, None
    if model.exists(TOKENIZER_CONFIG_FILE):
        try:
            config = json.loads(model.read_bytes(TOKENIZER_CONFIG_FILE))
            special = {key: name for key in ("bos_token", "eos_token", "pad_token", "unk_token") if (name := token_name(config.get(key)))}
            source = _default(config.get("chat_template")) or source
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise InputError(f"{model.path(TOKENIZER_CONFIG_FILE)}: not a tokenizer's configuration in JSON ({error}).") from error
    if model.exists(TEMPLATE_FILE):
        source = read_template(model, TEMPLATE_FILE)
    return ChatEncoder(model.read_bytes("tokenizer.json"), ChatTemplate(source, model.path(TEMPLATE_FILE), special), where)


def read_template(folder: Storage, name: str) -> str:
    """A template's text. Raises InputError."""
    try:
        return folder.read_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.path(name)}: byte {error.start} is not UTF-8.") from error
    except OSError as error:
        raise InputError(f"{folder.path(name)}: can't be read ({error.strerror or error}).") from error


def token_name(token: Any) -> str | None:
    """A special token of `tokenizer_config.json`: its text, or in older folders an object that holds it."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _default(template: Any) -> str | None:
    """A template of `tokenizer_config.json`; of several by name the default one. Raises TypeError where it is no text."""
    source = {item["name"]: item["template"] for item in template}.get("default") if isinstance(template, list) else template
    if source is not None and not isinstance(source, str):
        raise TypeError(f"chat_template is a {type(source).__name__}, expected text or a list of named texts")
    return source
