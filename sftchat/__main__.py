"""``python -m sftchat`` is the same program."""

from sftchat.cli import console_script

if __name__ == "__main__":
    console_script()
