"""Fuzz targets: any bytes from outside give a value or a named error, fast, and change nothing on disk. Run by ``scripts/fuzz``."""
