"""Token ids of prompts with continuations whose likelihood is computed, and results put together again.

A conversation is tokenized as in training: the reply on its own. A raw prompt is tokenized by the rule of lm-evaluation-harness (``_encode_pair`` in
``lm_eval/api/model.py``): white space at the end of the prompt moves to the continuation, both are tokenized as one text, and the continuation gets the
tokens after as many as the prompt has alone. After an empty prompt the continuation follows the BOS token, and one that exceeds the context length is
split into windows (``get_rolling_token_windows`` and ``make_disjoint_window`` in ``lm_eval/utils.py``), so that every token is counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sftchat.engine import Request
from sftchat.errors import EngineError, UsageError
from sftchat.inference.rendering import with_arguments
from sftchat.likelihood import Likelihood
from sftchat.templates.renderer import Renderer

TokenScore = tuple[float, bool]
"""Log-probability of a token, and whether it is the most probable one."""


@dataclass(eq=False)
class ScoredPrompt:
    """A prompt with the continuations to score after it.

    Attributes:
        ids: Token ids of the prompt, not empty.
        continuations: Token ids of each continuation; none is empty.
        scores: Scores of the tokens of each continuation; empty until they are computed.
        error: Why they cannot be computed; empty otherwise.
    """

    ids: list[int]
    continuations: list[list[int]]
    scores: list[list[TokenScore]] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class ScoredRequest:
    """A request with continuations, as token ids.

    Attributes:
        request: The request.
        prompts: One prompt with all continuations, or, for one long continuation, one prompt per window.
        adapter: Key of the adapter for the model.
    """

    request: Request
    prompts: tuple[ScoredPrompt, ...]
    adapter: str = ""

    @property
    def complete(self) -> bool:
        """Whether all continuations are scored, or failed."""
        return all(prompt.scores or prompt.error for prompt in self.prompts)

    @property
    def likelihoods(self) -> list[Likelihood]:
        """The likelihoods of the request's continuations, once they are scored.

        Raises:
            EngineError: When one is not finite.
        """
        per_text = self.prompts[0].scores if len(self.prompts) == 1 else [[score for prompt in self.prompts for score in prompt.scores[0]]]
        return [
            Likelihood.of(text, [logprob for logprob, _ in scores], all(is_best for _, is_best in scores))
            for text, scores in zip(self.request.continuations, per_text, strict=True)
        ]


def tokenize_request(renderer: Renderer, request: Request, max_inputs: int, adapter: str = "") -> ScoredRequest:
    """Tokenize a request with continuations.

    Args:
        renderer: Tokenizer and chat template.
        request: The request.
        max_inputs: Maximum number of tokens that the model reads: those of the prompt and of the continuation except its last.
        adapter: Key of the adapter.

    Raises:
        UsageError: When a continuation is empty, or follows nothing and the tokenizer has no BOS and no end-of-text token.
        EngineError: When prompt and continuation exceed ``max_inputs``.
        TemplateError: When the template refuses the messages.
    """
    prompt, continuations = _tokenize(renderer, request)
    if request.ended:
        stop = renderer.for_tools(request.tools).stop_token if request.prompt is None else renderer.tokenizer.eos_token_id
        continuations = [ids if stop is None or ids[-1:] == [stop] else [*ids, stop] for ids in continuations]
    if not prompt:
        prompt, continuations = _after_prefix_token(renderer.tokenizer, continuations)
    for number, ids in enumerate(continuations, start=1):
        if not ids:
            raise UsageError(
                f"there is nothing to score: continuation {number} of request '{request.id}' has no tokens of its own after the prompt"
            )
    longest = max(map(len, continuations))
    if len(prompt) + longest - 1 <= max_inputs:
        return ScoredRequest(request, (ScoredPrompt(prompt, continuations),), adapter)
    if request.prompt is None or len(prompt) > 1 or len(continuations) > 1:
        raise EngineError(
            f"prompt and continuation have {len(prompt)} and up to {longest} tokens; the model's context holds {max_inputs}, both together"
        )
    return ScoredRequest(request, _windows(prompt[0], continuations[0], max_inputs), adapter)


def _tokenize(renderer: Renderer, request: Request) -> tuple[list[int], list[list[int]]]:
    """Return the token ids of the prompt, which may be empty, and of each continuation."""
    tokenizer = renderer.tokenizer
    if request.prompt is None:
        renderer = with_arguments(renderer, request)
        prompt, continuations = renderer.continuation_ids(request.messages, request.continuations, request.reply_prefix, request.tools)
        return [*prompt, *request.reply_ids], continuations
    text = request.prompt + request.reply_prefix
    if request.reply_ids:
        alone = [list(tokenizer.encode(continuation, add_special_tokens=False)) for continuation in request.continuations]
        return [*tokenizer.encode(text), *request.reply_ids], alone
    stripped = text.rstrip()
    prompt = list(tokenizer.encode(stripped))
    return prompt, [list(tokenizer.encode(text + continuation))[len(prompt) :] for continuation in request.continuations]


def _after_prefix_token(tokenizer: Any, continuations: Sequence[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Return the token that an empty prompt consists of, and the continuations without it at their beginning."""
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if prefix is None:
        raise UsageError("the prompt is empty, and the tokenizer has no BOS and no end-of-text token to put before the text")
    return [prefix], [ids[1:] if ids[:1] == [prefix] else ids for ids in continuations]


def _windows(prefix: int, ids: Sequence[int], size: int) -> tuple[ScoredPrompt, ...]:
    """Split a long text into windows of ``size`` tokens; each follows as many earlier tokens as fit, at least one."""
    windows = [ScoredPrompt([prefix], [list(ids[:size])])]
    for start in range(size, len(ids), size):
        end = min(start + size, len(ids))
        windows.append(ScoredPrompt(list(ids[end - size - 1 : start]), [list(ids[start:end])]))
    return tuple(windows)
