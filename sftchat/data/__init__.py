"""Rows of training and evaluation data: read, recognised, checked, generated and written; standard library only."""
