"""Targets of fuzzing: whatever bytes come from outside are a value or a named error, soon, and nothing on disk changes. Run by ``scripts/fuzz``."""
