"""The GGUF engine: llama.cpp in this process, with prompts rendered here and sent as token ids."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

from sftchat.engine import Chunk, Request, answer_requests, emittable_length
from sftchat.errors import ModelError, SftchatError, UsageError
from sftchat.inference.continuations import ScoredRequest, tokenize_request
from sftchat.inference.llama_likelihood import TokenScorer, score_requests
from sftchat.inference.llama_server import SLOTS, Server
from sftchat.inference.rendering import RendersPrompts, decode, make_tokens, opens_thoughts_at_end
from sftchat.models.gguf import GgufHeader, load_gguf_tokenizer, read_header, require_gguf
from sftchat.models.gguf_tokenizer import describe_difference
from sftchat.models.local_files import gguf_file
from sftchat.models.reference import ModelReference
from sftchat.templates.parity import SAMPLES
from sftchat.templates.renderer import Renderer, check_arguments, choose_renderer
from sftchat.types import Choice, FinishReason


def open_gguf(
    name: str, reference: ModelReference, *, template: str = "", template_name: str = "", preferred: str = "chatml",
    template_arguments: Mapping[str, Any] | None = None, device: str = "auto",
) -> LlamaCppEngine:  # fmt: skip
    """Load a GGUF file with llama.cpp and prove that both tokenizers agree.

    Args:
        name: Name of the model, as the user gave it.
        reference: The file, local or on the Hub.
        template: Chat template name or file, instead of the one in the file.
        template_name: Name of one of the file's templates to use for every conversation.
        preferred: Template for a file without one.
        template_arguments: Arguments of the template.
        device: ``cpu`` for no accelerator; anything else lets llama.cpp use those that it was built for.

    Raises:
        MissingExtraError: When the packages are not installed.
        ModelError: When the file is damaged, llama.cpp cannot load it, or the tokenizers differ.
        UsageError: When the tokenizer lacks tokens of the template, or the template lacks an argument.
    """
    require_gguf(f"model '{name}'")
    header = read_header(gguf_file(reference))
    tokenizer = load_gguf_tokenizer(header)
    renderer = choose_renderer(tokenizer, template, preferred, template_arguments, template_name)
    check_arguments(renderer, template_arguments or ())
    server = Server(header, uses_accelerator=device != "cpu")
    try:
        check_tokenizers(header, renderer, server.tokenize)
    except ModelError:
        server.close()
        raise
    return LlamaCppEngine(name, header, server, renderer)


def check_tokenizers(header: GgufHeader, renderer: Renderer, tokenize: Callable[[str], Sequence[int]]) -> None:
    """Compare the ids that transformers and llama.cpp give to the rendered conversations of the parity check.

    Args:
        header: Header of the file.
        renderer: Tokenizer and template of the file.
        tokenize: Tokenizes a text with llama.cpp; special tokens in it are recognized.

    Raises:
        ModelError: When they differ, with the first difference.
    """
    texts = ["".join(message["content"] for message in sample.messages) for sample in SAMPLES]
    for sample in SAMPLES:
        try:
            texts.append(renderer.prompt_text(sample.messages[:-1]))
        except SftchatError:  # a template that cannot render this kind of conversation
            continue
    for text in texts:
        ours, theirs = renderer.tokenizer.encode(text, add_special_tokens=False), list(tokenize(text))
        if ours != theirs:
            rules = header.metadata.get("tokenizer.ggml.pre", "")
            difference = describe_difference(renderer.tokenizer, ours, theirs)
            raise ModelError(f"'{header.path}' cannot be used, its prompts would differ (splitting rules '{rules}'): {difference}")


@dataclass(frozen=True)
class RenderedRequest:
    """A request ready to be sent.

    Attributes:
        request: The request.
        ids: Token ids of the prompt.
        limit: Maximum number of tokens of the reply.
    """

    request: Request
    ids: Sequence[int]
    limit: int

    @property
    def tokens(self) -> int:
        """Maximum number of tokens of prompt and reply together."""
        return len(self.ids) + self.limit

    @property
    def body(self) -> dict[str, Any]:
        """The request in the format of OpenAI's completions, with llama.cpp's extensions; its filters are off unless the user sets them."""
        sampling = self.request.sampling
        return {
            "prompt": list(self.ids),
            "max_tokens": self.limit,
            "stream": True,
            "logprobs": 1,  # the only way to get token ids
            "seed": sampling.seed % (1 << 31),
            "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": self.tokens,
        }


class ReplyStream:
    """Converts llama.cpp's events for one request into chunks.

    llama.cpp sends one event per token, but none for a token that ends within a character: the event of the token that completes the character has
    the text of both and the id of the last.

    Args:
        rendered: The request.
        tokenizer: A transformers tokenizer.
        stop_ids: Token ids that end the reply, besides those that llama.cpp stops at.
        put: Called with every chunk.
    """

    def __init__(self, rendered: RenderedRequest, tokenizer: Any, stop_ids: Collection[int], put: Callable[[Chunk], None]) -> None:
        self._rendered = rendered
        self._tokenizer = tokenizer
        self._stop_ids = stop_ids
        self._put = put
        self._stop_strings = tuple(text for text in rendered.request.sampling.stop if text)
        self._thoughts_opened = opens_thoughts_at_end(tokenizer, rendered.ids)
        self._text = ""
        self._sent = 0
        self._tokens = 0
        self._stopped = False
        self.ended = False
        """Whether the last chunk has been put."""

    def receive(self, event: Mapping[str, Any]) -> bool:
        """Take the next event; returns whether to cancel the rest."""
        if "error" in event:
            self.fail(str(event["error"].get("message", event["error"])))
            return True
        choice = event["choices"][0]
        if choice["finish_reason"] is not None:
            usage = event.get("usage") or {}
            self._end(choice["finish_reason"], usage)
            return True
        if self._stopped:  # llama.cpp goes on after a token that only the template or the file's metadata names
            self._end("stop", {})
            return True
        entries = (choice.get("logprobs") or {}).get("content") or ()
        ids = self._token_ids(choice["text"], [entry["id"] for entry in entries])
        self._stopped = bool(ids) and ids[-1] in self._stop_ids
        if not self._stopped:
            self._add(choice["text"], ids)
        return self.ended

    def fail(self, message: str) -> None:
        """End the reply with an error."""
        self._last(Chunk(self._rendered.request.id, finish_reason="error", error=message))

    def _add(self, text: str, ids: tuple[int, ...]) -> None:
        request = self._rendered.request
        begins_reply = not (self._tokens or request.reply_prefix or request.reply_ids)
        if begins_reply and text.startswith(" ") and decode(self._tokenizer, ids) == text[1:]:
            text = text[1:]  # the space before the first word of a SentencePiece tokenizer
        self._text += text
        self._tokens += len(ids)
        end, at_stop_string = emittable_length(self._text, self._sent, self._stop_strings, final=False)
        released, self._sent = self._text[self._sent : end], end
        if at_stop_string:
            self._last(self._chunk(released, ids, "stop"))
        else:
            self._put(self._chunk(released, ids))

    def _end(self, reason: str, usage: Mapping[str, Any]) -> None:
        """Put the last chunk, with the counts of llama.cpp if it sent them."""
        end, _ = emittable_length(self._text, self._sent, self._stop_strings, final=True)
        unlisted = max(0, usage.get("completion_tokens", self._tokens) - self._tokens - self._stopped)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        finish: FinishReason = "length" if reason == "length" else "stop"
        self._last(replace(self._chunk(self._text[self._sent : end], (), finish), unlisted_tokens=unlisted, cached_tokens=cached))

    def _chunk(self, text: str, ids: tuple[int, ...], reason: FinishReason | None = None) -> Chunk:
        prompt_tokens = len(self._rendered.ids) if reason is not None else 0
        return Chunk(self._rendered.request.id, text, ids, reason, prompt_tokens, thoughts_opened=self._thoughts_opened)

    def _last(self, chunk: Chunk) -> None:
        if not self.ended:
            self.ended = True
            self._put(chunk)

    def _token_ids(self, text: str, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the ids of an event's tokens: those of its text, if its token only completes a character."""
        if len(ids) == 1 and "\ufffd" in self._tokenizer.decode(list(ids)):
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
            if encoded[-1:] == list(ids):
                return tuple(encoded)
        return tuple(ids)


class LlamaCppEngine(RendersPrompts):
    """Generates replies with a GGUF file; implements ``Engine``, ``Renders``, ``Counts``, ``Inspects`` and ``Templated``.

    Args:
        name: Name of the model, as the user gave it.
        header: Header of the file.
        server: The loaded model.
        renderer: Tokenizer and chat template.
    """

    def __init__(self, name: str, header: GgufHeader, server: Server, renderer: Renderer) -> None:
        self.name = name
        self.header = header
        self._server = server
        self._file_renderer = renderer
        self._token_scorer = TokenScorer(server, (*header.end_tokens, *renderer.stop_tokens)[0])
        self.stop_ids = tuple(sorted({*header.end_tokens, *renderer.stop_tokens}))

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together."""
        return self._server.context_length

    @property
    def precision(self) -> str:
        """Type of most weights."""
        return self.header.file_type

    @property
    def summary(self) -> str:
        """Number of parameters, precision and library."""
        return f"{self.header.parameters / 1e6:,.1f} M parameters, {self.precision}, llama.cpp"

    def renderer(self, adapter: str) -> Renderer:
        """Return the renderer of the file.

        Raises:
            UsageError: When an adapter is requested.
        """
        if adapter:
            raise UsageError(f"'{self.name}' is a GGUF file, which takes no adapters; merge the adapter and export the result")
        return self._file_renderer

    def close(self) -> None:
        """Unload the model."""
        self._server.close()

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies, or the likelihoods of continuations; at most ``SLOTS`` at a time, and only as many as fit into the context together."""
        return answer_requests(requests, self._generate, self._score)

    def _score(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Answer requests with continuations."""

        def prepare(request: Request) -> ScoredRequest:
            return tokenize_request(self.renderer(request.adapter), request, self.context_length - 1)

        return score_requests(requests, prepare, self._token_scorer, self._server.capacity)

    def _generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies."""
        chunks: SimpleQueue[Chunk] = SimpleQueue()
        cancelled = threading.Event()
        running: dict[str, int] = {}
        rendered = map(self._render_request, requests)
        following = next(rendered, None)
        with ThreadPoolExecutor(SLOTS, "llama.cpp") as pool:
            try:
                while running or following is not None:
                    while following is not None and self._fits(following, running):
                        if isinstance(following, Chunk):
                            yield following
                        else:
                            running[following.request.id] = following.tokens
                            pool.submit(self._answer, following, chunks.put, cancelled)
                        following = next(rendered, None)
                    if running:
                        chunk = chunks.get()
                        yield chunk
                        if chunk.finish_reason is not None:
                            del running[chunk.request_id]
            finally:
                cancelled.set()

    def choices(self, request: Request, reply: str | Sequence[int], *, ended: bool = True, alternatives: int = 0) -> tuple[Choice, ...]:
        """Return the log-probability of each token of a given reply, before sampling parameters; one request to llama.cpp per token.

        Raises:
            UsageError: When prompt or reply is empty.
            EngineError: When they exceed the context length, or llama.cpp fails.
        """
        renderer, (prompt, ids) = self.renderer(request.adapter), self.fit_reply(request, reply, ended)
        scores = [self._token_scorer.score([*prompt, *ids[:index]], token, max(alternatives, 1)) for index, token in enumerate(ids)]
        named = {token.id: token for token in make_tokens(renderer, sorted({*ids, *(other for _, best in scores for other in best)}))}
        return tuple(
            Choice(
                named[token],
                logprob,
                sum(value > logprob for value in best.values()),
                tuple((named[other], value) for other, value in list(best.items())[:alternatives]),
            )
            for token, (logprob, best) in zip(ids, scores, strict=True)
        )

    def _render_request(self, request: Request) -> RenderedRequest | Chunk:
        """Render a request; returns the chunk of a failed request when it cannot be rendered or exceeds the context length."""
        try:
            return RenderedRequest(request, *self.fit_prompt(request))
        except SftchatError as error:
            return Chunk(request.id, finish_reason="error", error=str(error))

    def _fits(self, following: RenderedRequest | Chunk, running: Mapping[str, int]) -> bool:
        """Whether the next request can start beside the running ones, given with their numbers of tokens."""
        if isinstance(following, Chunk):
            return True
        return len(running) < SLOTS and sum(running.values()) + following.tokens <= self._server.capacity

    def _answer(self, rendered: RenderedRequest, put: Callable[[Chunk], None], cancelled: threading.Event) -> None:
        """Generate one reply in a thread of the pool; its last chunk is put whatever happens."""
        stream = ReplyStream(rendered, self._file_renderer.tokenizer, self.stop_ids, put)
        error = self._server.complete(rendered.body, lambda event: cancelled.is_set() or stream.receive(event))
        stream.fail(error or "llama.cpp ended the reply without a reason")
