"""Output formats of a report: ``view`` has the report as data and what the formats share, every other module is a format."""
