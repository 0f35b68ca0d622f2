"""The chat templates that the installed TRL ships, each with a tokenizer that has the tokens it writes."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

_SPEC = importlib.util.find_spec("trl")
assert _SPEC is not None
assert _SPEC.origin is not None
FOLDER = Path(_SPEC.origin).parent / "chat_templates"
SHIPPED = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
"""Sources by name."""

TOKEN = re.compile(r"<[|｜][^<>\s'\"{}]+[|｜]?>|<(?:start|end)_of_\w+>|</?(?:think|tool_call|tool_response|s)>|<(?:\w+)[|]>|\[/?INST\]")
ENDS = (
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<turn|>",
)


@cache
def tokenizer_for(source: str) -> Any:
    """A byte-level tokenizer that has what looks like a special token in a template; thoughts and calls are tokens that a reply may hold."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    from tests.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    found = sorted(set(TOKEN.findall(source)))
    said = [token for token in found if re.search("think|tool_call|tool_response", token)]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t, special=True, normalized=False) for t in found if t not in said]}
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in said])
    tokenizer.add_special_tokens({"bos_token": "<|begin|>", "eos_token": next((end for end in ENDS if end in found), "<|endoftext|>")})
    return tokenizer
