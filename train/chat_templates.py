"""The chat templates that go by a name, and the special tokens that each needs."""

from dataclasses import dataclass

from corpusmill.pipeline.special_tokens import IM_END, IM_START

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

#: Llama 3's own text (https://github.com/meta-llama/llama3, `ChatFormat`), with the answers marked as in TRL's `llama3_training.jinja`.
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
    """A template with the special tokens that it writes; `bos` is its `bos_token`, None where it has none of its own."""

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
