"""Evaluation: replies to gold sets, scored by the task, with honest intervals, paired comparisons and a gate.

``evalset`` reads gold rows, ``selection`` some of them · ``items`` asks and scores · ``replies`` and ``baseline`` store what was said,
``tools`` reads what other tools stored · ``scored`` holds what items count, ``tally`` sums it up, ``pairing`` lays two models side by side ·
``storage`` reads into memory or leaves a million items ``on_disk`` · ``accepting`` writes a baseline · ``statistics`` and ``paired`` do the
sums · ``evaluate`` joins them for one model or two, ``changes`` finds the items that differ · ``rules`` is what the user demands, ``gate`` the three verdicts, ``verdict`` the exit code ·
``plan`` checks a whole evaluation, ``power`` says what it could show, ``pipeline`` carries it out · ``results``, ``comparison`` and
``report`` are the outcome as data · ``tables`` and ``progress`` show it on the terminal · ``history`` lists what became of every
item · ``junit``, ``markdown``, ``annotations`` and ``html`` (with ``charts`` and ``page/``) are projections of report and verdict ·
``store`` and ``remembering`` ask no model twice, ``shares`` has several processes ask · ``ranking`` orders checkpoints · ``leaks`` and ``selfcheck`` ask what a score is worth.
"""
