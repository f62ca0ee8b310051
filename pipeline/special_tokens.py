"""The special tokens of every tokenizer that a run trains, in the order of their ids (0, 1, 2, ...).

They are reserved from the start, so that instruction tuning needs no new embedding rows. They are never produced from
text: the string `<|im_start|>` in a document is encoded like any other text.
"""

END_OF_TEXT = "<|endoftext|>"  # between documents; begins each document's context
PAD = "<|pad|>"  # never a target; differs from every end token
IM_START = "<|im_start|>"  # ChatML: begins a turn
IM_END = "<|im_end|>"  # ChatML: ends a turn; a target in the assistant's turns

SPECIAL_TOKENS = (END_OF_TEXT, PAD, IM_START, IM_END)
EOT_ID, PAD_ID, IM_START_ID, IM_END_ID = range(4)
