"""The line that represents a library's error."""

from __future__ import annotations

import pytest

from sftchat.errors import MAX_LIBRARY_MESSAGE, first_line


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", "RuntimeError"),
        ("\n  out of memory\nTried to allocate", "out of memory"),
        ("Error(s) in loading state_dict for Model:\n\tsize mismatch for a.b:\n\n  [1] is not [2].", "Error(s) in loading state_dict for Model: size mismatch for a.b: [1] is not [2]."),
        ("it failed:", "it failed:"),
    ],
)  # fmt: skip
def test_the_first_line_of_an_error_is_shown_with_the_lines_that_it_announces(message: str, expected: str) -> None:
    assert first_line(RuntimeError(message)) == expected


def test_announced_lines_are_cut_to_a_readable_length() -> None:
    shown = first_line(RuntimeError("these do not fit:\n" + "layer\n" * 1000))

    assert (len(shown), shown[:23], shown[-1]) == (MAX_LIBRARY_MESSAGE, "these do not fit: layer", "…")
