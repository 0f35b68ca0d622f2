"""Helpers without knowledge of models: files, SQLite, JSON, output streams, calls of third-party code."""
