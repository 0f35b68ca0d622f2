"""Evaluation: replies to gold sets, scored by the task, with honest intervals and paired comparisons.

``evalset`` reads gold rows · ``items`` asks and scores · ``replies`` stores what was said · ``statistics`` and ``paired`` do the sums ·
``evaluate`` joins them for one model or two · ``plan`` checks a whole evaluation and ``pipeline`` carries it out ·
``report`` is the result as data · ``verdict`` decides the exit code · ``tables`` and ``progress`` show it on the terminal ·
``history`` lists what became of every item · ``junit``, ``markdown``, ``annotations`` and ``html`` (with ``charts`` and ``page/``) are projections
of report and verdict.
"""
