"""Helpers that do not depend on models: files, SQLite, JSON, output streams, calls of third-party code."""
