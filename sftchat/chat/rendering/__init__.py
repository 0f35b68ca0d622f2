"""Text in, styled lines out: everything that is shown of a reply, computed without a terminal."""
