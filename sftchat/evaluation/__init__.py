"""Evaluation: replies to gold sets, scored by the task, with honest intervals and paired comparisons.

``evalset`` reads gold rows · ``items`` asks and scores · ``replies`` stores what was said · ``statistics`` and ``paired`` do the sums ·
``evaluate`` joins them for one model or two · ``plan`` checks a whole evaluation and ``pipeline`` carries it out ·
``report`` is the result as data · ``tables`` and ``progress`` show it · ``verdict`` decides the exit code.
"""
