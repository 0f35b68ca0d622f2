"""A byte-level tokenizer of a few hundred ids with the special tokens of a chat template, for testing the template without its model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

TOKEN = re.compile(
    r"<[|｜][^<>\s'\"{}]+[|｜]?>|<\w+[|]>"  # <|im_end|>, <｜User｜>, <|turn>, <turn|>
    r"|<(?:start|end)_of_\w+>|</?(?:think|tool_call|tool_response|s)>"
    r"|\[/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|ARGS|CALL_ID|THINK)\]|\[gMASK\]|<sop>"  # Mistral, ChatGLM
    r"|<\|?SPECIAL_\d+\|?>|</?seed:\w+>|\]~\w?\]|\[e~\["  # Nemotron, Seed, MiniMax
    r"|\[\|\w+\|\]|<sep>|<step>|</?(?:assistant|user|system)>"  # EXAONE, Reka, CodeLlama, Laguna
)
"""Pattern of text in a template that looks like a special token."""
JOINED = "'<|' + message"
"""Pattern of the role tokens of Phi-4-mini's template."""
SAID = re.compile("think|tool_call|tool_response|THINK|TOOL_CALLS|ARGS|seed:tool")
"""Tokens that a reply may contain; they are not special tokens, so a model's text may have them."""
ENDS = (
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
"""End-of-text tokens for a template whose tokenizer is unknown."""


@cache
def tokenizer_for(source: str, bos: str = "<|begin|>", eos: str = "", special: tuple[str, ...] = (), said: tuple[str, ...] = ()) -> Any:
    """Return a tokenizer with the special tokens of a template.

    Args:
        source: The Jinja source.
        bos: The token that begins a text.
        eos: The token that ends one; empty for the first of ``ENDS`` that the template writes, else ``<|endoftext|>``.
        special: Further special tokens.
        said: Further tokens that a reply may hold.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    roles = [f"<|{role}|>" for role in ("system", "user", "assistant", "tool")] if JOINED in source else []
    found = sorted({*TOKEN.findall(source), *roles} - {*special, *said})
    spoken = [*(token for token in found if SAID.search(token)), *said]
    known = [token for token in (*found, *special) if token not in spoken]
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True, normalized=False) for token in known]})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in spoken])
    end = eos or next((token for token in ENDS if token in found), "<|endoftext|>")
    tokenizer.add_special_tokens({"bos_token": bos, "eos_token": end, "pad_token": end})
    return tokenizer
