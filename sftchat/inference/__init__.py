"""Engines: models on this machine, and models behind OpenAI-compatible servers."""
