"""A new plugin project: its files and how they are written."""
