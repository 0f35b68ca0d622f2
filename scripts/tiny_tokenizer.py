"""A byte-level tokenizer of a few hundred ids with the special tokens of a chat template, for testing the template without its model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

SPECIAL_TOKEN_PATTERN = re.compile(
    r"<[|｜][^<>\s'\"{}]+[|｜]?>|<\w+[|]>"  # <|im_end|>, <｜User｜>, <|turn>, <turn|>
    r"|<(?:start|end)_of_\w+>|</?(?:think|tool_call|tool_response|s)>"
    r"|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|ARGS|CALL_ID|THINK)\]|\[gMASK\]|<sop>"  # Mistral, ChatGLM
    r"|<\|?SPECIAL_\d+\|?>|</?seed:\w+>|\]~\w?\]|\[e~\["  # Nemotron, Seed, MiniMax
    r"|\[\|\w+\|\]|<sep>|<step>|</?(?:assistant|user|system)>"  # EXAONE, Reka, CodeLlama, Laguna
)
"""Pattern of text in a template that looks like a special token."""
JOINED_ROLES = "'<|' + message"
"""Code of Phi-4-mini's template that joins the role tokens from parts, so that no pattern finds them."""
REPLY_TOKEN_PATTERN = re.compile("think|tool_call|tool_response|THINK|TOOL_CALLS|ARGS|seed:tool")
"""Pattern of tokens that a reply may contain; they are no special tokens, because text from outside may not contain those."""
END_TOKENS = (
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<turn|>",
    "<seed:eos>",
    "<SPECIAL_12>",
    "[|endofturn|]",
    "[e~[",
    "<step>",
    "</s>",
)
"""Tokens that end a reply, for a template whose tokenizer is unknown; the first that the template writes is used."""


@cache
def tokenizer_for(
    source: str,
    bos: str = "<|begin|>",
    eos: str = "",
    further_special_tokens: tuple[str, ...] = (),
    further_reply_tokens: tuple[str, ...] = (),
) -> Any:
    """Return a tokenizer with the special tokens of a template.

    Args:
        source: The Jinja source.
        bos: The token that begins a text.
        eos: The token that ends a text; empty for the first of ``END_TOKENS`` that the template writes, else ``<|endoftext|>``.
        further_special_tokens: Special tokens that the source does not show.
        further_reply_tokens: Tokens that a reply may contain and that the source does not show.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level)
    roles = [f"<|{role}|>" for role in ("system", "user", "assistant", "tool")] if JOINED_ROLES in source else []
    template_tokens = sorted({*SPECIAL_TOKEN_PATTERN.findall(source), *roles} - {*further_special_tokens, *further_reply_tokens})
    reply_tokens = [*(token for token in template_tokens if REPLY_TOKEN_PATTERN.search(token)), *further_reply_tokens]
    special_tokens = [token for token in (*template_tokens, *further_special_tokens) if token not in reply_tokens]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True, normalized=False) for token in special_tokens]}
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in reply_tokens])
    eos_token = eos or next((token for token in END_TOKENS if token in template_tokens), "<|endoftext|>")
    tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos_token, "pad_token": eos_token})
    return tokenizer
