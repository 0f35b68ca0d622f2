"""Evaluation: replies to gold sets, scored by the task, with honest intervals and paired comparisons.

``evalset`` reads gold rows · ``items`` asks and scores · ``replies`` stores what was said · ``statistics`` and ``paired`` do the sums ·
``evaluate`` joins them · ``report`` is the result as data · ``tables`` shows it · ``verdict`` decides the exit code.
"""
