"""Streaming detokenization: never emits half a character or text that becomes part of a stop string, and never loses the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftchat.inference.stop_strings import released


class Detokenizer:
    """Converts the token ids of one reply into pieces of text whose concatenation is the decoded reply.

    Args:
        tokenizer: A transformers tokenizer.
        stop: Strings that end the reply and are not part of it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._decoded = ""
        self._sent = 0
        self._step = self._stream()
        self.stopped = False
        """Whether a stop string has appeared; no more text is emitted then."""

    def add(self, token_id: int) -> str:
        """Return the new text that a token completes; may be empty."""
        self._ids.append(token_id)
        self._decoded += self._step(token_id)
        return self._release(final=False)

    def begin(self, token_ids: Sequence[int]) -> None:
        """Add the beginning of a reply whose text is known; only later text is emitted."""
        for token in token_ids:
            self.add(token)
        self._sent = len(self._decoded)
        self.stopped = False

    def finish(self) -> str:
        """Return the text still held back; incomplete characters become U+FFFD."""
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if whole.startswith(self._decoded):
            self._decoded = whole
        return self._release(final=True)

    def _release(self, final: bool) -> str:
        """Return the text that can no longer become part of a stop string."""
        if self.stopped:
            return ""
        end, self.stopped = released(self._decoded, self._sent, self._stop, final=final)
        piece = self._decoded[self._sent : end]
        self._sent += len(piece)
        return piece

    def _stream(self) -> Any:
        """Return an incremental decoder: of the tokenizers library, or for tokenizers written in Python a comparison of decoded texts."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is not None:
            from tokenizers.decoders import DecodeStream

            stream = DecodeStream([], skip_special_tokens=True)
            return lambda token_id: stream.step(backend, token_id) or ""
        return self._window

    def _window(self, _token_id: int) -> str:
        """Return the new text of the decoded whole; empty while it ends within a character."""
        whole: str = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return "" if whole.endswith("\ufffd") else whole[len(self._decoded) :]
