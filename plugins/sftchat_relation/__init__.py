"""Relation extraction from Chinese novel prose: generator, parser, scorer and gold set of the task ``relation``."""
