"""Which template a tuning gets, how answers are told in one that marks none, and what is refused."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from corpusmill.pipeline.errors import InputError
from corpusmill.pipeline.special_tokens import EOT_ID, IM_END_ID, IM_START_ID
from corpusmill.pipeline.storage import Storage
from corpusmill.train.chat_folder import PROBE, add_special_tokens, chat_files, choose_chat, require_learnable, seam, token_ids
from corpusmill.train.chat_templates import CHATML
from corpusmill.train.template import ChatEncoder, ChatTemplate, TemplateRefusal, template_files

CONVERSATION = [
    {"role": "system", "content": "You are brief."},
    *PROBE,
    {"role": "user", "content": "And corn?"},
    {"role": "assistant", "content": "Grain."},
]


@pytest.fixture
def folder(tmp_path, tokenizer_json) -> Storage:
    for name, content in {"tokenizer.json": tokenizer_json, **template_files(128, end_token="<|endoftext|>")}.items():
        (tmp_path / name).write_bytes(content)
    return Storage(str(tmp_path))


def published(name: str) -> str:
    """A published template, as TRL keeps it."""
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        pytest.skip("trl is not installed")
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text()


def learned(encoder: ChatEncoder, messages) -> list[str]:
    pieces = encoder.template.pieces(messages)
    return re.findall("\x01([^\x02]*)\x02", "".join(f"\x01{p.text}\x02" if p.learned else p.text for p in pieces).replace("\x02\x01", ""))


@pytest.mark.parametrize(
    "name", ["llama3", "llama3_1", "llama3_2", "qwen2_5_vl", "qwen3_instruct_2507", "lfm2", "gemma3", "cohere", "cohere2"]
)
def test_answers_of_a_template_that_marks_none_are_those_that_trl_marks(tokenizer_json, name):
    """TRL has a second version of each of these by hand, some of which also learn the line break behind the end token."""
    source, marked = published(name), published({"llama3_1": "llama3", "llama3_2": "llama3"}.get(name, name) + "_training")
    tokens = sorted(set(re.findall(r"<\|\w+\|>|<\w+_of_turn>", source)))
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    tokenizer = add_special_tokens(tokenizer_json, tokens)
    ours, theirs = (ChatEncoder(tokenizer, ChatTemplate(text, name, special)) for text in (source, marked))
    assert not ours.template.marks_answers and theirs.template.marks_answers
    assert learned(ours, CONVERSATION) == [text.rstrip("\n") for text in learned(theirs, CONVERSATION)]
    require_learnable(ours)


def test_an_answer_that_is_rewritten_later_is_refused(tokenizer_json):
    """Qwen3 leaves thoughts out of all but the last answer, so no rule can say what was said."""
    encoder = ChatEncoder(tokenizer_json, ChatTemplate(published("qwen3"), "qwen3"))
    with pytest.raises(TemplateRefusal, match=r"qwen3: marks nothing that the assistant says, and message 3 can't be told"):
        encoder.encode(CONVERSATION)


def between(content: str) -> str:
    """A template with this for a turn's content."""
    return "{% for m in messages %}<|im_start|>{{ m.role }}\n" + content + "<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "marks nothing that the assistant says, and message 2 can't be told"),
        (between("{% generation %}{% endgeneration %}{{ m.content }}"), "marks nothing that the assistant says, so nothing"),
        ("{% generation %}" + between("{{ m.content }}") + "{% endgeneration %}", "marks what the user says"),
        (CHATML.replace("+ '<|im_end|>' }}{% endgeneration %}", "}}{% endgeneration %}<|im_end|>"), "marks no special token at the end"),
        (CHATML.replace("<|im_", "<|turn_"), "marks no special token at the end"),
        ("{{ messages[9].content.x }}", "the conversation can't be rendered"),
        ("{{ 1 / 0 }}", "the conversation can't be rendered"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", r"the conversation can't be rendered \(RecursionError\)"),
        ("{{ 'a' * 2 ** 62 }}", r"the conversation can't be rendered \(MemoryError\)"),
    ],
)
def test_a_template_that_can_teach_nothing_is_refused_with_what_to_do(tokenizer_json, source, message):
    with pytest.raises(InputError, match=rf"^x\.jinja: {message}.*choose sft\.template: chatml or llama3\)?\.$"):
        require_learnable(ChatEncoder(tokenizer_json, ChatTemplate(source, "x.jinja")))


def test_a_pad_token_that_ends_answers_is_refused_and_a_named_template_brings_its_own(folder):
    files = template_files(128, special={"bos_token": "<|endoftext|>", "pad_token": "<|im_end|>"})
    folder.write_bytes("tokenizer_config.json", files["tokenizer_config.json"])
    with pytest.raises(InputError, match=r"answers end with <\|im_end\|>, which is the tokenizer's pad token, too"):
        require_learnable(choose_chat(folder))
    named = choose_chat(folder, "chatml")
    require_learnable(named)
    assert named.template.special["pad_token"] == "<|pad|>" and named.special_ids["<|pad|>"] == 1


def test_a_tokenizer_without_the_tokens_gets_them(folder, tokenizer_json):
    tokenizer = json.loads(tokenizer_json)
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:1]
    folder.write_bytes("tokenizer.json", json.dumps(tokenizer).encode())
    folder.write_bytes("tokenizer_config.json", b'{"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|endoftext|>"}')
    with pytest.raises(InputError, match="marks no special token at the end of an answer"):
        require_learnable(choose_chat(folder))
    named = choose_chat(folder, "llama3")
    assert list(named.special_ids) == [
        "<|endoftext|>",
        "<|pad|>",
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    ids = token_ids(chat_files(named, 128))
    size = len(tokenizer["model"]["vocab"])
    assert (ids.bos, ids.eos, ids.pad, ids.ends) == (size, size + 3, 1, [0, 3, size + 3])
    assert named.tokenizer_json == choose_chat(folder, "llama3").tokenizer_json


def test_a_token_may_be_an_object_that_holds_it(tokenizer_json):
    config = {"bos_token": {"content": "<|im_start|>"}, "eos_token": {"content": "<|im_end|>", "lstrip": False}, "pad_token": None}
    ids = token_ids({"tokenizer.json": tokenizer_json, "tokenizer_config.json": json.dumps(config).encode()})
    assert (ids.bos, ids.eos, ids.pad, ids.ends) == (IM_START_ID, IM_END_ID, None, [EOT_ID, IM_END_ID])


def test_a_template_of_a_file(folder, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(CHATML.replace("'\\n'", "' says\\n'"))
    encoder = choose_chat(folder, str(path))
    require_learnable(encoder)
    assert "user says\nWhat" in "".join(piece.text for piece in encoder.template.pieces(PROBE))
    assert encoder.fingerprint != choose_chat(folder).fingerprint
    path.write_text("a\n{% for %}")
    with pytest.raises(InputError, match=r"own\.jinja:2: not a valid chat template"):
        choose_chat(folder, str(path))
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"own\.jinja: byte 0 is not UTF-8"):
        choose_chat(folder, str(path))
    with pytest.raises(InputError, match=r"none\.jinja: can't be read \(No such file"):
        choose_chat(folder, str(tmp_path / "none.jinja"))


def test_a_text_stays_what_it_is_in_the_saved_folder(folder, tmp_path):
    """Phi-3 ends answers with one token, and conversations with `eos_token`."""
    (tmp_path / "own.jinja").write_text(CHATML + "{{ eos_token }}")
    encoder = choose_chat(folder, str(tmp_path / "own.jinja"))
    for name, content in chat_files(encoder, 128).items():
        folder.write_bytes(name, content)
    assert choose_chat(folder).encode(PROBE).ids.tolist() == encoder.encode(PROBE).ids.tolist()


def test_line_breaks_that_are_cut_otherwise_once_an_answer_follows_are_a_warning(folder, tokenizer_json):
    """GPT-2's pattern splits two line breaks before a word, and keeps them together at the end of a prompt."""
    tokenizer = json.loads(tokenizer_json)
    tokenizer["model"]["merges"].append(["Ċ", "Ċ"])
    tokenizer["model"]["vocab"]["ĊĊ"] = len(tokenizer["model"]["vocab"])
    folder.write_bytes("tokenizer.json", json.dumps(tokenizer).encode())
    assert seam(choose_chat(folder)) == []
    (warning,) = seam(choose_chat(folder, "llama3"))
    assert "a prompt's tokens are not the beginning" in warning


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"chat_template": [{"name": "x"}]}', b'{"chat_template": {"default": "x"}}'])
def test_a_configuration_that_is_none_is_named(folder, config):
    folder.write_bytes("tokenizer_config.json", config)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: not a tokenizer's configuration in JSON"):
        choose_chat(folder)
