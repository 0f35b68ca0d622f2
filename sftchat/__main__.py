"""Run the program with ``python -m sftchat``."""

from sftchat.cli import console_script

if __name__ == "__main__":
    console_script()
