"""Run a chat in a real terminal with a scripted model, for tests that need a pty and for manual use.

python tests/chat/driver.py --slow 0.02
"""

import argparse
import asyncio
import os
import random
import sys
import threading
import time
from pathlib import Path

import tokenizers

from sftchat.chat.commands import BUILTINS, Commands
from sftchat.chat.context import Settings
from sftchat.chat.controller import ChatController
from sftchat.chat.pane import Opening
from sftchat.chat.ui import app as view
from sftchat.chat.ui import replies
from sftchat.chat.ui.app import Terminal
from sftchat.errors import EngineError
from sftchat.testing import ScriptedEngine
from sftchat.types import SamplingParams


def script(request):
    said = request.messages[-1]["content"]
    if said == "crash":
        return ["so f", EngineError("out of memory")]
    if said == "clear":
        return "before\x1b[2J\x1b[Hafter\x9b31m\x07\rend"
    if said == "long":
        return "床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 12 + "\n第二段 🙂 the end"
    if said == "list":
        return "\n".join(f"{n}. 第{n}条 item {n}" for n in range(1, 41))
    if said.startswith("case "):
        return random_text(said)
    return f"你说：{said}"


ALPHABET = [*"的一是不了人我在有他，。！？「」：、 ab cde,.  \n\néñ한국어かな０１🙂🎉", "👨‍👩‍👧", "e\u0301", "❤️", "🇩🇪", "\x1b[2J"]


def random_text(case):
    """Return the reply to ``case N``: lines of any length, characters of any width."""
    chance = random.Random(case)
    length = chance.choice([0, 1, 5, 30, 120, 400])
    text = "".join(chance.choice(ALPHABET) for _ in range(length))
    return text if chance.random() < 0.8 else text.replace("\n", "")


class Bytes:
    """Tokenizer with one token per byte."""

    def __init__(self):
        self.backend_tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({letter: at for at, letter in enumerate(self.letters())}, []))
        self.backend_tokenizer.decoder = tokenizers.decoders.ByteLevel()

    @staticmethod
    def letters():
        return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())

    def encode(self, text):
        letters, encoder = self.letters(), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return [letters.index(letter) for word, _ in encoder.pre_tokenize_str(text) for letter in word]

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return self.backend_tokenizer.decode(ids)


def pauses(text):
    """Return the tokens after which a reply pauses, so that the terminal can be resized."""
    chance = random.Random(text)
    return sorted(chance.sample(range(len(text) // 4), min(len(text) // 20, chance.randint(0, 3))))  # a token has at least four bytes


def random_tokens(text):
    """Yield a text as an engine does: through the detokenizer, in tokens that may end within characters."""
    from sftchat.inference.sequence import Detokenizer  # imports torch, which most runs do not need

    chance, tokenizer = random.Random(text), Bytes()
    detokenizer, ids = Detokenizer(tokenizer, ("\0never",)), tokenizer.encode(text)
    while ids:
        size = chance.choice([1, 1, 2, 3, 3])
        yield "".join(map(detokenizer.add, ids[:size]))
        ids = ids[size:]
    yield detokenizer.finish()


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--load-when", type=Path, help="the model is loaded once this file exists")
    options.add_argument("--go-on-when", type=Path, help="replies pause after their first piece until this file exists")
    options.add_argument("--slow", type=float, default=0.0, help="seconds for each character")
    options.add_argument("--tokens", action="store_true", help="replies come in random tokens, each drawn on its own")
    options.add_argument("--pauses", type=int, nargs=2, help="file descriptors: a byte is written when a reply pauses, and one is awaited")
    options.add_argument("--history", type=Path)
    given = options.parse_args()
    pause = threading.Event()

    def pieces(text):
        if given.tokens:
            stops = pauses(text) if given.pauses else []
            for number, piece in enumerate(random_tokens(text)):
                time.sleep(given.slow)
                yield piece
                if number in stops:
                    terminal.post(lambda: asyncio.get_running_loop().call_later(0.03, os.write, given.pauses[0], b"."))
                    os.read(given.pauses[1], 1)
            return
        for character in text:
            time.sleep(given.slow)
            yield character

    def watch():
        while not given.go_on_when.exists():
            time.sleep(0.02)
        pause.set()

    def load():
        while given.load_when and not given.load_when.exists():
            time.sleep(0.02)
        return ScriptedEngine(script, chunks=pieces, pause=pause if given.go_on_when else None, context_length=10_000_000)

    if given.tokens:
        replies.FRAME_SECONDS = 0.0
        view.TICK_SECONDS = 3600.0  # only streamed text is drawn
    if given.go_on_when:
        threading.Thread(target=watch, daemon=True).start()
    settings = Settings(SamplingParams(max_new_tokens=10_000))
    make = lambda shown: ChatController([Opening(load, ("scripted",))], shown, commands=Commands(BUILTINS), settings=settings)  # noqa: E731
    terminal = Terminal(make, history=given.history)
    terminal.run()
    sys.stdout.write("left\n")


if __name__ == "__main__":
    main()
