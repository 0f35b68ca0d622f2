"""Evaluation: generate replies to evalsets, score them, compute confidence intervals, compare models pairwise and decide a gate.

- Files: ``evalset`` reads evalsets; ``replies``, ``baseline`` and ``update_baseline`` read and write stored replies.
- One model or two: ``evaluate`` generates, scores, summarises and compares; ``scored`` holds the items with their counts; ``results`` has the
  classes of the results; ``checks`` finds leaks, measures repeatability and ranks checkpoints.
- Statistics: ``statistics`` for one model, ``comparison`` for two, ``power`` before anything runs.
- Gate: ``gate`` has everything that decides the exit code.
- A whole evaluation: ``plan`` checks it, and ``pipeline`` runs it; ``cached_engine``, on top of ``reply_cache``, and ``partial_replies`` avoid
  repeated requests; ``report`` has the output formats.
"""
