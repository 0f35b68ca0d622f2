"""A chat in a real terminal with a scripted model; run by the tests that need a pty, and handy by hand.

python tests/chat/driver.py --slow 0.02
"""

import argparse
import sys
import threading
import time
from pathlib import Path

from sftchat.chat.builtin import BUILTINS
from sftchat.chat.column import Opening
from sftchat.chat.commands import Commands
from sftchat.chat.settings import Settings
from sftchat.chat.talk import Talk
from sftchat.chat.terminal import Terminal
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
    return f"你说：{said}"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--load-when", type=Path, help="the model is loaded once this file exists")
    options.add_argument("--go-on-when", type=Path, help="replies pause after their first piece until this file exists")
    options.add_argument("--slow", type=float, default=0.0, help="seconds for each character")
    options.add_argument("--history", type=Path)
    given = options.parse_args()
    pause = threading.Event()

    def pieces(text):
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
        return ScriptedEngine(script, chunks=pieces, pause=pause if given.go_on_when else None)

    if given.go_on_when:
        threading.Thread(target=watch, daemon=True).start()
    settings = Settings(SamplingParams(max_new_tokens=10_000))
    make = lambda view: Talk([Opening(load, ("scripted",))], view, commands=Commands(BUILTINS), settings=settings)  # noqa: E731
    Terminal(make, history=given.history).run()
    sys.stdout.write("left\n")


if __name__ == "__main__":
    main()
