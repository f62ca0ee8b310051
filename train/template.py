"""Chat templates: conversations as text and as tokens, the mask of tokens to learn, and a tokenizer's files for a model folder.

Templates are Jinja2 in the dialect of `transformers` (`{% generation %}` marks the assistant's text), so `apply_chat_template` on the
folder gives the same text. Templates are rendered in a sandbox, as they may come from a stranger.
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
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID, IM_END, IM_END_ID, IM_START, PAD, PAD_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage

# ---- named templates ---------------------------------------------------------------------------------
#
# The chat templates with names, and the special tokens that each needs.

#: ChatML. Contents are trimmed, so that a turn's first token never merges with the line break before it. So a prompt in use is exactly the
#: beginning of a conversation in training. The end token belongs to the assistant's turn; the line break after it does not.
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

#: Llama 3's own format (https://github.com/meta-llama/llama3, `ChatFormat`), with the answers marked as in TRL's `llama3_training.jinja`.
LLAMA3 = (
    "{%- for message in messages %}"
    "{%- if loop.first %}{{- bos_token }}{%- endif %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{%- else %}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class NamedTemplate:
    """A template with the special tokens that it writes. `end` ends a turn; `bos` is its `bos_token`, or None."""

    source: str
    tokens: tuple[str, ...]
    end: str
    bos: str | None = None


NAMED = {
    "chatml": NamedTemplate(CHATML, (IM_START, IM_END), end=IM_END),
    "llama3": NamedTemplate(
        LLAMA3,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end="<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
}


# ---- template and tokens -----------------------------------------------------------------------------

Message = Mapping[str, str]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

# Unicode noncharacters, meant for a program's internal use. They mark places inside rendered text; in a conversation they are replaced, as
# Unicode allows.
_LEARN, _STOP, _LITERAL = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = re.compile(f"[{_LEARN}{_STOP}{_LITERAL}]")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusal(InputError):
    """A template refuses a conversation, or its answers can't be recognised in the rendered text."""


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


@dataclass(frozen=True)
class TextPiece:
    """A part of a rendered conversation: plain text or one special token, learned or not."""

    text: str
    special: bool
    learned: bool


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens: `ids` int32 and `mask` bool, both [tokens]; the mask marks the tokens to learn."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


NOTHING = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))


def template_files(
    model_max_length: int,
    source: str = CHATML,
    end_token: str = IM_END,
    special: Mapping[str, str] | None = None,
    added: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """Returns the files that, next to `tokenizer.json`, make `transformers` load the tokenizer with this template.

    `end_token` ends a generation: `<|endoftext|>` for a pre-trained model, `<|im_end|>` for a chat model. `special`: other tokens by name
    (`bos_token`, ...). `added`: the added tokens of `tokenizer.json`. Without these two, our own tokens are used.
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
    """A compiled template. Raises InputError if it does not compile.

    `special` are tokens by the names that a template may use (`bos_token`, ...); `tokens` are all special tokens of the tokenizer. In a
    template without `{% generation %}`, an answer is the text from the generation prompt up to the last special token of the turn.
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
        """Returns the rendered conversation, cut at special tokens and where learning starts or stops. Joined, the pieces are the text of
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
        """Returns `whole` with marks around each answer, which is found by rendering the conversation before it and with it."""
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
        """Returns `text` with a mark inside the name of every special token, so that it is read as plain text."""
        return self._special.sub(lambda match: match[0][0] + _LITERAL + match[0][1:], _MARKS.sub("\ufffd", text))

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            return str(self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self.special))
        except (RecursionError, MemoryError) as error:  # from a macro that calls itself, or a text without end
            raise TemplateRefusal(f"{self.name}: the conversation can't be rendered ({type(error).__name__}).") from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TemplateRefusal(f"{self.name}: the conversation can't be rendered ({error}).") from error


def _compile(source: str, name: str) -> Any:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block `{% generation %} ... {% endgeneration %}`, whose output is put between two marks."""

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
    except (RecursionError, MemoryError, SyntaxError) as error:  # SyntaxError: Python's compiler accepts at most twenty nested loops
        raise InputError(f"{name}: not a valid chat template (it is nested too deeply).") from error


class ChatEncoder:
    """A tokenizer with its template: turns conversations into token ids and the mask of tokens to learn."""

    def __init__(self, tokenizer_json: bytes, template: ChatTemplate, name: str = "tokenizer.json"):
        from tokenizers import Tokenizer

        self.tokenizer_json = tokenizer_json
        try:
            self.tokenizer = Tokenizer.from_str(tokenizer_json.decode())
        except Exception as error:  # the library raises nothing more special
            raise InputError(f"{name}: not a tokenizer ({error}).") from error
        self.tokenizer.encode_special_tokens = True  # the name of a special token in a text is plain text
        #: Ids of special tokens by name.
        self.special_ids = {token.content: number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.template = ChatTemplate(template.source, template.name, template.special, self.special_ids)

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Encoded:
        """Returns the tokens of a conversation; nothing is added before or after the template's text.

        Text between two special tokens is encoded in one piece, as `transformers` does, even where an answer begins inside it. A token on
        the border of learned text is learned.
        """
        return self.encode_pieces(self.template.pieces(messages, add_generation_prompt))

    def encode_pieces(self, written: Iterable[TextPiece]) -> Encoded:
        """Encodes rendered pieces of a conversation, see `encode`."""
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
        """The sha256 (hex) of the tokenizer and the template, which together decide the tokens of a conversation."""
        return digest([hashlib.sha256(self.tokenizer_json).hexdigest(), self.template.source, sorted(self.template.special.items())])


def _learned(pieces: Sequence[TextPiece], encoding: Any) -> npt.NDArray[np.bool_]:
    """Returns [tokens]: whether each token of a text holds a learned character."""
    if len(pieces) == 1:
        return np.full(len(encoding.ids), pieces[0].learned)
    learned = np.concatenate([[0], np.cumsum(np.concatenate([np.full(len(piece.text), piece.learned) for piece in pieces]))])
    begin, end = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
    return learned[np.minimum(np.maximum(end, begin + 1), len(learned) - 1)] > learned[begin]


def load_chat(model: Storage) -> ChatEncoder:
    """Returns the tokenizer and template of a model folder; ChatML where it has no template. Raises InputError if a file is broken."""
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
    """Returns a template's text. Raises InputError if it can't be read."""
    try:
        return folder.read_bytes(name).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{folder.path(name)}: byte {error.start} is not UTF-8.") from error
    except OSError as error:
        raise InputError(f"{folder.path(name)}: can't be read ({error.strerror or error}).") from error


def token_name(token: Any) -> str | None:
    """Returns the text of a special token in `tokenizer_config.json`, where older folders have an object with the text."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _default(template: Any) -> str | None:
    """Returns the template of `tokenizer_config.json`; of several named ones the default. Raises TypeError if it is no text."""
    source = {item["name"]: item["template"] for item in template}.get("default") if isinstance(template, list) else template
    if source is not None and not isinstance(source, str):
        raise TypeError(f"chat_template is a {type(source).__name__}, expected text or a list of named texts")
    return source


# ---- the template of a tuning ------------------------------------------------------------------------
#
# Chooses the template, checks that a model can learn from it, and makes the files for the model folder.

#: A conversation that tests a template.
PROBE = (user_turn("What is a mill?"), assistant_turn("A machine that grinds."))
_CHOICE = "choose sft.template: chatml or llama3"
_ADVICE = f"write its content and end token between {{% generation %}} and {{% endgeneration %}}, or {_CHOICE}"


def choose_chat(model: Storage, template: str = "keep") -> ChatEncoder:
    """Returns a model folder's tokenizer with its own template (`keep`), one of NAMED (with its tokens), or one from a file."""
    chat = load_chat(model)
    if template == "keep":
        return chat
    if template not in NAMED:
        folder, _, name = template.rpartition("/")
        source = read_template(Storage(folder or "."), name)
        return ChatEncoder(chat.tokenizer_json, ChatTemplate(source, template, chat.template.special))
    named, special = NAMED[template], chat.template.special
    tokens = [*named.tokens]
    if special.get("pad_token", named.end) in (named.end, special.get("eos_token")):  # padding needs a token of its own
        tokens.append(PAD)
        special = {**special, "pad_token": PAD}
    if named.bos:
        special = {**special, "bos_token": named.bos}
    made = ChatTemplate(named.source, f"the template {template}", {**special, "eos_token": named.end})
    return ChatEncoder(add_special_tokens(chat.tokenizer_json, tokens), made)


def add_special_tokens(tokenizer_json: bytes, tokens: list[str]) -> bytes:
    """Returns a `tokenizer.json` that also has these special tokens. Missing ones get the next ids, in this order."""
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [AddedToken(token, special=True, normalized=False) for token in tokens if token not in there]
    if not missing:
        return tokenizer_json
    tokenizer.add_special_tokens(missing)
    return str(tokenizer.to_str(pretty=True)).encode()


def require_learnable(encoder: ChatEncoder) -> None:
    """Raises InputError if a template would teach nothing, or the wrong text, or if the pad token ends answers."""
    end = end_of_answers(encoder)
    if encoder.template.special.get("pad_token") == end:
        raise InputError(
            f"{encoder.template.name}: answers end with {end}, which is the tokenizer's pad token, too, and padding is never learned "
            "(give tokenizer_config.json a pad_token of its own, or choose sft.template: chatml or llama3, which bring one)."
        )


def end_of_answers(encoder: ChatEncoder) -> str:
    """Returns the special token that ends the assistant's text. Raises InputError unless the template marks exactly that text."""
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
    """Returns a warning if a prompt's tokens are not the first tokens of the whole conversation: prompts in use then differ from
    training."""
    prompt, whole = encoder.encode(PROBE[:1], add_generation_prompt=True).ids.tolist(), encoder.encode(PROBE).ids.tolist()
    if whole[: len(prompt)] == prompt:
        return []
    return [
        f"{encoder.template.name}: a prompt's tokens are not the beginning of the whole conversation's, as the tokenizer cuts line breaks "
        "otherwise once an answer follows them, so prompts in use then differ from training "
        "(tokenizer.pattern cl100k, o200k and llama3 do not, nor does the template chatml)."
    ]


def chat_files(encoder: ChatEncoder, context: int) -> dict[str, bytes]:
    """Returns the tokenizer's files of a chat model, by name. Its `eos_token` is the token that ends answers; but where the template writes
    `eos_token`, that stays unchanged, as the text would change with it."""
    template = encoder.template
    end = template.special.get("eos_token") if "eos_token" in template.source else None
    added: list[Mapping[str, Any]] = json.loads(encoder.tokenizer_json)["added_tokens"]
    files = template_files(context, template.source, end or end_of_answers(encoder), template.special, added)
    return {"tokenizer.json": encoder.tokenizer_json, **files}


@dataclass(frozen=True)
class TokenIds:
    """The ids of a tokenizer's special tokens for `config.json` and `generation_config.json`; `ends` are all ids that end a text."""

    bos: int | None
    eos: int | None
    pad: int | None
    ends: list[int]


def token_ids(files: Mapping[str, bytes]) -> TokenIds:
    """Returns the ids of the special tokens that a tokenizer's files name; those of our own tokenizers where nothing is named."""
    if not {"tokenizer.json", TOKENIZER_CONFIG_FILE} <= files.keys():
        return TokenIds(EOT_ID, EOT_ID, PAD_ID, [EOT_ID, IM_END_ID])
    tokenizer, config = (json.loads(files[name]) for name in ("tokenizer.json", TOKENIZER_CONFIG_FILE))
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    bos, eos, pad = (ids.get(token_name(config.get(name))) for name in ("bos_token", "eos_token", "pad_token"))
    ends = {number for number in (ids.get(END_OF_TEXT), ids.get(IM_END), eos) if number is not None}
    return TokenIds(bos, eos, pad, sorted(ends))
