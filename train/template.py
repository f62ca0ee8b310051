"""Chat templates: conversations as text and as tokens, the mask of tokens to learn, and a tokenizer's files for a model folder.

Templates are Jinja2 in the dialect of `transformers` (`{% generation %}` marks the assistant's text), so `apply_chat_template` on the
folder gives the same text. Templates are rendered in a sandbox, as they may come from a stranger.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.pipeline.config import parse_json
from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.memory import limited
from corpusmill.pipeline.special_tokens import END_OF_TEXT, EOT_ID, IM_END, IM_END_ID, IM_START, PAD, PAD_ID, SPECIAL_TOKENS
from corpusmill.pipeline.storage import Storage

#: The limits of a rendering, which may be a stranger's template: megabytes in addition to what the process holds, seconds of its time.
MEGABYTES, SECONDS = 1024, 10.0

# ---- named templates ---------------------------------------------------------------------------------

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


#: Each template with the special tokens that it writes: the last ends a turn; the first is its `bos_token`, if it writes one.
NAMED = {
    "chatml": (CHATML, (IM_START, IM_END)),
    "llama3": (LLAMA3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
}

#: Special tokens by the names that templates use for them, in our own tokenizers.
DEFAULT = {"bos_token": END_OF_TEXT, "eos_token": IM_END, "pad_token": PAD}


# ---- conversations as text and as tokens -------------------------------------------------------------

Message = Mapping[str, str]

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

#: Marks inside rendered text: learned text begins and ends; a name of a special token is plain text. They are Unicode noncharacters, meant
#: for a program's internal use; in a conversation they are replaced, as Unicode allows.
LEARN, STOP, LITERAL = "\ufdd0", "\ufdd1", "\ufdd2"
MARKS = re.compile(f"[{LEARN}{STOP}{LITERAL}]")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefusal(InputError):
    """A template refuses a conversation, or its answers can't be recognised in the rendered text."""


def user_turn(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_turn(text: str) -> Message:
    return {"role": "assistant", "content": text}


@dataclass(frozen=True)
class Encoded:
    """A conversation as tokens: `ids` int32 and `mask` bool, both [tokens]; the mask marks the tokens to learn."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


NOTHING = Encoded(np.zeros(0, np.int32), np.zeros(0, np.bool_))


class ChatEncoder:
    """A tokenizer with a chat template: turns conversations into text, token ids and the mask of tokens to learn.

    `name` is what messages call the template; `special` are tokens by the names that it may use (`bos_token`, ...). In a template without
    `{% generation %}`, an answer is the text from the generation prompt up to the last special token of the turn. Raises InputError if the
    tokenizer (at `where`) or the template is broken.
    """

    def __init__(
        self, tokenizer_json: bytes, source: str = CHATML, name: str = "chat template", special: Mapping[str, str] | None = None,
        where: str = "tokenizer.json",
    ):  # fmt: skip
        self.tokenizer_json, self.source, self.name = tokenizer_json, source, name
        self.special, self.tokenizer = dict(special or DEFAULT), _tokenizer(tokenizer_json, where)
        self.tokenizer.encode_special_tokens = True  # the name of a special token in a text is plain text
        #: Ids of special tokens by name.
        self.special_ids = {token.content: number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        names = "|".join(re.escape(token) for token in sorted(self.special_ids, key=lambda token: (-len(token), token)))
        self._special = re.compile(f"({names or '(?!)'})")
        self.marks_answers = _GENERATION.search(source) is not None
        self._template = _compile(source, name)

    def encode(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> Encoded:
        """Returns the tokens of a conversation; nothing is added before or after the template's text.

        Text between two special tokens is encoded in one piece, as `transformers` does, even where an answer begins inside it. A token on
        the border of learned text is learned.
        """
        return self.encode_text(self.text(messages, add_generation_prompt))

    def encode_text(self, text: str) -> Encoded:
        """Encodes a text with MARKS, see `encode`."""
        ids, masks, learned = list[int](), [np.zeros(0, np.bool_)], False
        for part in self._special.split(text):
            if part in self.special_ids:
                ids.append(self.special_ids[part])
                masks.append(np.array([learned]))
                continue
            plain, flags = "", list[bool]()  # a flag for each character
            for piece in re.split(f"([{LEARN}{STOP}])", part.replace(LITERAL, "")):
                if piece in (LEARN, STOP):
                    learned = piece == LEARN
                else:
                    plain, flags = plain + piece, flags + [learned] * len(piece)
            if plain:
                encoding, before = self.tokenizer.encode(plain, add_special_tokens=False), np.cumsum([0, *flags])
                begin, end = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
                ids += encoding.ids
                masks.append(before[np.minimum(np.maximum(end, begin + 1), len(plain))] > before[begin])
        return Encoded(np.array(ids, np.int32), np.concatenate(masks))

    def text(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """Returns the rendered conversation with MARKS; without them it is the text of `apply_chat_template(..., tokenize=False)`.

        The name of a special token inside a message is plain text: only the template makes special tokens.
        """

        def literal(text: str) -> str:
            return self._special.sub(lambda match: match[0][0] + LITERAL + match[0][1:], MARKS.sub("\ufffd", text))

        said = [{key: literal(value) for key, value in message.items()} for message in messages]
        text = self._render(said, add_generation_prompt)
        return text if self.marks_answers else self._mark_answers(said, text)

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
            parts += [whole[place : len(prompt)], LEARN, whole[len(prompt) : end], STOP]
            place = end
        return "".join([*parts, whole[place:]])

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        try:
            with limited(MEGABYTES, SECONDS):
                return str(self._template.render(messages=messages, add_generation_prompt=add_generation_prompt, **self.special))
        except Exception as error:  # a template can raise any
            raise TemplateRefusal(f"{self.name}: the conversation can't be rendered ({str(error) or type(error).__name__}).") from error


def _tokenizer(tokenizer_json: bytes, where: str) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{where}: not a tokenizer ({error}).") from error


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
            return LEARN + str(caller()) + STOP

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    try:
        with limited(MEGABYTES, SECONDS):  # Jinja computes constants here
            return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{name}:{error.lineno}: not a valid chat template ({error.message}).") from error
    except ValueError as error:
        raise InputError(f"{name}: not a valid chat template ({error}).") from error
    except (RecursionError, SyntaxError) as error:  # SyntaxError: Python's compiler accepts at most twenty nested loops
        raise InputError(f"{name}: not a valid chat template (it is nested too deeply).") from error


# ---- the chat of a model folder ----------------------------------------------------------------------

#: A conversation that tests a template.
PROBE = (user_turn("What is a mill?"), assistant_turn("A machine that grinds."))
_CHOICE = "choose sft.template: chatml or llama3"
_ADVICE = f"write its content and end token between {{% generation %}} and {{% endgeneration %}}, or {_CHOICE}"


def load_chat(model: Storage, template: str = "keep") -> ChatEncoder:
    """Returns a model folder's tokenizer with a template: its own or ChatML (`keep`), one of NAMED with its tokens, or one from a file.
    Raises InputError if a file is missing or broken."""
    where, path = model.path("tokenizer.json"), model.path(TOKENIZER_CONFIG_FILE)
    if not model.exists("tokenizer.json"):
        raise InputError(f"{where}: no such file; a model folder carries its tokenizer.")
    content, special, source = model.read_bytes("tokenizer.json"), None, None
    if model.exists(TOKENIZER_CONFIG_FILE):
        try:
            config = parse_json(model.read_bytes(TOKENIZER_CONFIG_FILE))
            special = {key: name for key in ("bos_token", "eos_token", "pad_token", "unk_token") if (name := token_name(config.get(key)))}
            source = config.get("chat_template")
            if isinstance(source, list):  # several templates with names
                source = {item["name"]: item["template"] for item in source}.get("default")
            if not isinstance(source, str | None):
                raise TypeError(f"chat_template is a {type(source).__name__}, expected text or a list of named texts")
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise InputError(f"{path}: not a tokenizer's configuration in JSON ({error}).") from error
    if template == "keep":
        source = _read_template(model.path(TEMPLATE_FILE)) if model.exists(TEMPLATE_FILE) else source or CHATML
        return ChatEncoder(content, source, model.path(TEMPLATE_FILE), special, where)
    if template not in NAMED:
        return ChatEncoder(content, _read_template(template), template, special, where)
    (source, tokens), special = NAMED[template], dict(special or DEFAULT)
    begin, end = tokens[0], tokens[-1]
    if special.get("pad_token", end) in (end, special.get("eos_token")):  # padding needs a token of its own
        tokens, special["pad_token"] = (*tokens, PAD), PAD
    if "bos_token" in source:
        special["bos_token"] = begin
    special["eos_token"] = end
    return ChatEncoder(add_special_tokens(content, tokens, where), source, f"the template {template}", special, where)


def read_file(path: str) -> bytes:
    """Returns the content of a user's file. Raises InputError if it can't be read."""
    folder, _, name = path.rpartition("/")
    try:
        return Storage(folder or ".").read_bytes(name)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}).") from error


def _read_template(path: str) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8.") from error


def token_name(token: Any) -> str | None:
    """Returns the text of a special token in `tokenizer_config.json`, where older folders have an object with the text."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def add_special_tokens(tokenizer_json: bytes, tokens: Sequence[str], where: str = "tokenizer.json") -> bytes:
    """Returns a `tokenizer.json` that also has these special tokens. Missing ones get the next ids, in this order."""
    from tokenizers import AddedToken

    tokenizer = _tokenizer(tokenizer_json, where)
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    missing = [AddedToken(token, special=True, normalized=False) for token in tokens if token not in there]
    if not missing:
        return tokenizer_json
    tokenizer.add_special_tokens(missing)
    return str(tokenizer.to_str(pretty=True)).encode()


def end_of_answers(encoder: ChatEncoder) -> str:
    """Returns the special token that ends the assistant's text. Raises InputError unless the template marks exactly that text."""
    question, answer = (message["content"] for message in PROBE)
    try:
        text = "".join(re.findall(f"{LEARN}([^{STOP}]*){STOP}", encoder.text(PROBE)))
    except TemplateRefusal as refusal:
        raise InputError(f"{str(refusal).removesuffix('.')}; {_CHOICE}.") from refusal
    if answer not in text:
        raise InputError(f"{encoder.name}: marks nothing that the assistant says, so nothing can be learned ({_ADVICE}).")
    if question in text:
        raise InputError(f"{encoder.name}: marks what the user says, so questions would be learned ({_ADVICE}).")
    ends = [token for token in encoder.special_ids if text.rstrip().endswith(token)]
    if not ends:
        raise InputError(f"{encoder.name}: marks no special token at the end of an answer, so a model would never stop ({_ADVICE}).")
    return max(ends, key=len)


def require_learnable(encoder: ChatEncoder) -> None:
    """Raises InputError if a template would teach nothing, or the wrong text, or if the pad token ends answers."""
    end = end_of_answers(encoder)
    if encoder.special.get("pad_token") == end:
        raise InputError(
            f"{encoder.name}: answers end with {end}, which is the tokenizer's pad token, too, and padding is never learned "
            "(give tokenizer_config.json a pad_token of its own, or choose sft.template: chatml or llama3, which bring one)."
        )


def seam(encoder: ChatEncoder) -> list[str]:
    """Returns a warning if a prompt's tokens are not the first tokens of the whole conversation: prompts in use then differ from
    training."""
    prompt, whole = encoder.encode(PROBE[:1], add_generation_prompt=True).ids.tolist(), encoder.encode(PROBE).ids.tolist()
    if whole[: len(prompt)] == prompt:
        return []
    return [
        f"{encoder.name}: a prompt's tokens are not the beginning of the whole conversation's, as the tokenizer cuts line breaks "
        "otherwise once an answer follows them, so prompts in use then differ from training "
        "(tokenizer.pattern cl100k, o200k and llama3 do not, nor does the template chatml)."
    ]


# ---- the tokenizer's files in a model folder ---------------------------------------------------------


def template_files(
    model_max_length: int, source: str = CHATML, end_token: str = IM_END, special: Mapping[str, str] = DEFAULT,
    added: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:  # fmt: skip
    """Returns the files that, next to `tokenizer.json`, make `transformers` load the tokenizer with this template.

    `end_token` ends a generation: `<|endoftext|>` for a pre-trained model, `<|im_end|>` for a chat model. `special`: other tokens by name
    (`bos_token`, ...). `added`: the added tokens of `tokenizer.json`; without them, our own are used.
    """
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    tokens = added or [{"id": number, "content": token, **plain} for number, token in enumerate(SPECIAL_TOKENS)]
    config = {
        **special,
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


def chat_files(encoder: ChatEncoder, context: int) -> dict[str, bytes]:
    """Returns the tokenizer's files of a chat model, by name. Its `eos_token` is the token that ends answers; but where the template writes
    `eos_token`, that stays unchanged, as the text would change with it."""
    end = encoder.special.get("eos_token") if "eos_token" in encoder.source else None
    added: list[Mapping[str, Any]] = parse_json(encoder.tokenizer_json)["added_tokens"]
    files = template_files(context, encoder.source, end or end_of_answers(encoder), encoder.special, added)
    return {"tokenizer.json": encoder.tokenizer_json, **files}


def token_ids(files: Mapping[str, bytes]) -> tuple[int | None, int | None, int | None, list[int]]:
    """Returns the ids of `bos_token`, `eos_token` and `pad_token` that a tokenizer's files name, and of all tokens that end a text. Without
    such files they are those of our own tokenizers."""
    if not {"tokenizer.json", TOKENIZER_CONFIG_FILE} <= files.keys():
        return EOT_ID, EOT_ID, PAD_ID, [EOT_ID, IM_END_ID]
    tokenizer, config = (parse_json(files[name]) for name in ("tokenizer.json", TOKENIZER_CONFIG_FILE))
    ids = {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}
    bos, eos, pad = (ids.get(token_name(config.get(name))) for name in ("bos_token", "eos_token", "pad_token"))
    return bos, eos, pad, sorted({number for number in (ids.get(END_OF_TEXT), ids.get(IM_END), eos) if number is not None})
