"""Relation extraction from Chinese novel prose: generator, parser, scorer and evalset of the task ``relation``."""
