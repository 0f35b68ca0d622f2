"""Rows of training and evaluation data: read, detect formats, check, generate and write; standard library only."""
