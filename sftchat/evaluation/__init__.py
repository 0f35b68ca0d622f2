"""Evaluation: generate replies to evalsets, score them, compute confidence intervals, compare models pairwise and decide a gate.

- Input: ``evalset`` reads evalsets; ``replies`` and ``baseline`` read and write stored replies.
- One model or two: ``evaluate`` generates, scores, summarises and compares; ``scored`` holds items with their counts; ``results`` is what comes
  out; ``checks`` are leaks, repeatability and ranking.
- Statistics: ``statistics`` for one model, ``comparison`` for two, ``power`` before anything runs.
- Gate: ``gate`` is everything that decides the exit code.
- A whole evaluation: ``plan`` checks it, ``pipeline`` runs it; ``reply_cache`` and ``partial_replies`` avoid repeated requests;
  ``report`` has the output formats.
"""
