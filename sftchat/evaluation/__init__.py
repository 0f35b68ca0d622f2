"""Evaluation: generate replies to evalsets, score them, compute confidence intervals, compare models pairwise and decide a gate.

- Input: ``evalset`` reads evalsets; ``replies`` and ``baseline`` read stored replies.
- Generation: ``run`` generates and scores; ``cached_engine``, ``reply_cache`` and ``partial_replies`` avoid repeated requests; ``distributed``
  uses several processes.
- Statistics: ``scored``, ``totals`` and ``pairing`` hold counts; ``statistics``, ``paired_test`` and ``power`` compute intervals and tests.
- Results: ``evaluate`` for one model or two; ``checks`` for leaks, repeatability and ranking; ``results`` and ``comparison`` as data.
- Gate: ``rules`` is its configuration, ``gate`` decides.
- A whole evaluation: ``plan`` checks it, ``pipeline`` runs it; ``progress`` shows progress, ``report`` writes the output formats,
  ``update_baseline`` writes a baseline.
"""
