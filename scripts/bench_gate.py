"""Compare our gate with the published rules of other tools on the same simulated results, and time our gate.

    python scripts/bench_gate.py [rules] [power] [speed] [--repetitions 300]

Without a section all three are printed, as the Markdown of docs/gate.md. Two models answer items with one to three triples each, at a
micro-F1 of .8; half of the errors are missing triples, half are wrong triples. Four of five triples have the same result for both models; the fifth
is drawn again for the second model, whose true F1 is lower by ``drop``.

The rules are re-implemented from these sources, as of 2026:

nel compare     NVIDIA-NeMo/Evaluator, src/nemo_evaluator/engine/comparison.py (_compute_verdict), metrics/paired_tests.py: one-sided exact
                McNemar for rewards of 0 and 1, else one-sided permutation of mean rewards; defaults --max-drop .05, --correct-above 0
TrainJudge      Himanshukurrey/trainjudge, src/trainjudge/verdict.py: ``decide`` demands an improvement of 3 points; ``RegressionResult`` is
                its regression rule, a drop of more than 5 points and 2 items
evalgate        ritvikmudgal/evalgate, src/evalgate/stats.py (mcnemar_test): two-sided exact McNemar, fails when significant
Soup            soup-cli 0.77 on PyPI: soup_cli/utils/ship_verdict.py (decide_ship) ships a model whose task score is strictly higher and
                whose suites are down by no more than .05; soup_cli/utils/eval_gate_hook.py (decide_regression) bootstraps the stored
                rows of a run, which are a single aggregate, and fails when the upper bound is under -.02
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sftchat import Metric, ratio
from sftchat.evaluation.comparison import paired_difference
from sftchat.evaluation.gate import decide_outcome
from sftchat.evaluation.gate_options import GatedMetric
from sftchat.evaluation.statistics import Counts, metric_interval

F1 = Metric("f1", lambda sums: ratio(2 * sums["tp"], sums["pred"] + sums["gold"]), stats=("tp", "pred", "gold"))
KEYS = ("gold", "pred", "tp")
"""Columns of the counts: gold triples, predicted triples, right triples."""
RESAMPLED_SHARE = 0.2
BASE_F1 = 0.8
SIZES = (100, 300, 1000)
PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
Rows = NDArray[np.float64]
Rule = Callable[[Rows, Rows], str]


def two_models(draw: np.random.Generator, items: int, drop: float, missing_share: float = 0.5) -> tuple[Counts, Counts]:
    """Simulate the counts of two models on the same items.

    Args:
        draw: Random number generator.
        items: Number of items.
        drop: By how much the true F1 of the second model is lower.
        missing_share: Share of errors that are missing triples; the others are wrong triples.
    """
    item_of_triple = np.repeat(np.arange(items), draw.integers(1, 4, items))
    triples = len(item_of_triple)
    old_share, new_share = found_share(BASE_F1, missing_share), found_share(BASE_F1 - drop, missing_share)
    is_repeated = draw.random(triples) < 1 - RESAMPLED_SHARE
    old_right = draw.random(triples) < old_share
    # only the resampled triples may get worse, so their share of right ones is lower by the whole drop
    new_right = draw.random(triples) < old_share - (old_share - new_share) / RESAMPLED_SHARE
    old_missing, new_missing = draw.random(triples) < missing_share, draw.random(triples) < missing_share
    new_right, new_missing = np.where(is_repeated, old_right, new_right), np.where(is_repeated, old_missing, new_missing)
    return _count_by_item(item_of_triple, items, old_right, old_missing), _count_by_item(item_of_triple, items, new_right, new_missing)


def found_share(f1: float, missing_share: float) -> float:
    """Return the share ``a`` of gold triples that a model must find for this micro-F1, from F1 = 2a / (a + (1 - a)(1 - missing_share) + 1)."""
    return f1 * (2 - missing_share) / (2 - f1 * missing_share)


def _count_by_item(item_of_triple: NDArray[np.int64], items: int, right: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Counts:
    """Sum up the triples of each item."""
    gold = np.ones(len(item_of_triple))
    predicted = right | ~missing  # a triple that is not right is either missing or predicted wrongly
    columns = [np.bincount(item_of_triple, per_triple, items) for per_triple in (gold, predicted, right)]
    return Counts(KEYS, np.stack(columns, axis=1))


def ours(before: Rows, after: Rows) -> str:
    """Apply sftchat's gate with its defaults."""
    difference = paired_difference(Counts(KEYS, before), Counts(KEYS, after), F1)
    return {"regressed": FAIL, "inconclusive": UNDECIDED, "fine": PASS}[decide_outcome(difference, GatedMetric("f1"))]


def nel_binary(before: Rows, after: Rows) -> str:
    """Apply ``nel compare --strict`` to exact matches."""
    old, new = exact_matches(before), exact_matches(after)
    broken, fixed = int((old & ~new).sum()), int((new & ~old).sum())
    return _nel(_upper_tail(broken, broken + fixed), (broken - fixed) / len(old), broken, fixed)


def nel_f1(before: Rows, after: Rows) -> str:
    """Apply ``nel compare --strict`` to the F1 of each item: a permutation test of the means, Cohen's d as the effect.

    An item counts as broken or fixed when its F1 falls to 0 or rises from 0.
    """
    old, new = item_f1(before), item_f1(after)
    deltas = old - new
    changed = deltas[deltas != 0]
    spread = float(deltas.std(ddof=1))
    signs = np.random.default_rng(42).choice([-1, 1], size=(10_000, len(changed)))
    p = float((signs @ changed >= changed.sum()).sum() + 1) / 10_001
    flips = int(((old > 0) & ~(new > 0)).sum()), int(((new > 0) & ~(old > 0)).sum())
    return _nel(p, float(deltas.mean()) / spread if spread else 0.0, *flips)


def _nel(p: float, effect: float, broken: int, fixed: int, max_drop: float = 0.05) -> str:
    """Return the result of a CI job: BLOCK fails it (exit code 1); WARN and INCONCLUSIVE leave it undecided (exit code 2)."""
    if broken + fixed == 0:
        return PASS
    if p < 0.05:
        return FAIL if abs(effect) > max_drop and broken > fixed else UNDECIDED
    return UNDECIDED if 2.8 / math.sqrt(broken + fixed) > 2 * max_drop else PASS


def trainjudge_verify(before: Rows, after: Rows) -> str:
    """Apply ``trainjudge verify --strict``, which rejects anything but a significant gain of 3 points."""
    old, new = exact_matches(before), exact_matches(after)
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    return PASS if (gained - lost) / len(old) * 100 >= 3 and _two_sided(gained, lost) < 0.05 else FAIL


def trainjudge_regression(before: Rows, after: Rows) -> str:
    """Apply TrainJudge's regression rule."""
    net = int(exact_matches(before).sum()) - int(exact_matches(after).sum())
    return FAIL if net / len(before) * 100 > 5 and net >= 2 else PASS


def evalgate(before: Rows, after: Rows) -> str:
    """Apply evalgate's rule, which fails a model that is significantly worse."""
    old, new = exact_matches(before), exact_matches(after)
    broken, fixed = int((old & ~new).sum()), int((new & ~old).sum())
    return FAIL if broken > fixed and _two_sided(broken, fixed) < 0.05 else PASS


def soup_task(before: Rows, after: Rows) -> str:
    """Apply the first rule of ``soup ship``: the task's score must be strictly higher."""
    return PASS if micro_f1(after) > micro_f1(before) else FAIL


def soup_suite(before: Rows, after: Rows) -> str:
    """Apply the second rule of ``soup ship``: a suite may drop by .05, with a tolerance for rounding."""
    return FAIL if micro_f1(before) - micro_f1(after) > 0.05 + 1e-9 else PASS


def soup_against(before: Rows, after: Rows) -> str:
    """Apply ``soup eval against``: each resample of a single aggregate is that aggregate, so both bounds are the difference itself."""
    return FAIL if micro_f1(after) - micro_f1(before) < -0.02 else PASS


RULES: dict[str, Rule] = {
    "sftchat": ours,
    "nel, exact match": nel_binary,
    "nel, item F1": nel_f1,
    "TrainJudge verify": trainjudge_verify,
    "TrainJudge regression": trainjudge_regression,
    "evalgate": evalgate,
    "Soup ship, task": soup_task,
    "Soup ship, suite": soup_suite,
    "Soup eval against": soup_against,
}


def exact_matches(rows: Rows) -> NDArray[np.bool_]:
    """Return for each item whether all its triples are right."""
    gold, predicted, right = rows.T
    return (gold == right) & (predicted == right)


def item_f1(rows: Rows) -> Rows:
    """Return the F1 of each item."""
    gold, predicted, right = rows.T
    return np.asarray(2 * right / (gold + predicted))


def micro_f1(rows: Rows) -> float:
    """Return the F1 of the sums over all items."""
    gold, predicted, right = rows.sum(axis=0)
    return float(2 * right / (gold + predicted))


def _upper_tail(k: int, n: int) -> float:
    """Return the probability of at least k heads in n tosses of a fair coin."""
    return sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n


def _two_sided(a: int, b: int) -> float:
    """Return the p-value of the exact McNemar test."""
    return min(1.0, 2 * _upper_tail(max(a, b), a + b)) if a + b else 1.0


def simulate_cases(draw: np.random.Generator, items: int) -> dict[str, tuple[Counts, Counts]]:
    """Simulate one evaluation for each true difference: the counts of the baseline and of the candidate."""
    before, unchanged = two_models(draw, items, 0.0)
    one_broken = before.rows.copy()
    first_right = np.flatnonzero(exact_matches(before.rows))[0]
    one_broken[first_right, KEYS.index("tp")] -= 1
    return {
        "identical replies": (before, before),
        "one item broken": (before, Counts(KEYS, one_broken)),
        "no true change": (before, unchanged),
        "3 points worse": two_models(draw, items, 0.03),
    }


def rules_table(repetitions: int) -> Iterator[str]:
    """Yield the table of all rules."""
    yield f"Pass / fail / undecided, in percent of {repetitions} simulated evaluations:"
    yield ""
    yield "| items | truth | " + " | ".join(RULES) + " |"
    yield "|---:|---|" + "---|" * len(RULES)
    for items in SIZES:
        draw = np.random.default_rng(items)
        decisions: dict[str, dict[str, list[str]]] = {}
        for _ in range(repetitions):
            for truth, (before, after) in simulate_cases(draw, items).items():
                for name, rule in RULES.items():
                    decisions.setdefault(truth, {}).setdefault(name, []).append(rule(before.rows, after.rows))
        for truth, by_rule in decisions.items():
            shares = [
                " / ".join(f"{100 * of_rule.count(decision) / len(of_rule):.0f}" for decision in (PASS, FAIL, UNDECIDED))
                for of_rule in by_rule.values()
            ]
            yield f"| {items} | {truth} | " + " | ".join(shares) + " |"


def power_table(repetitions: int) -> Iterator[str]:
    """Yield the table of the shares of models that our gate fails, by true drop."""
    drops = (0.0, 0.01, 0.03, 0.05)
    yield f"Share of {repetitions} simulated candidates that our gate fails:"
    yield ""
    yield "| faults | items | " + " | ".join(f"{100 * drop:.0f} points worse" if drop else "no change" for drop in drops) + " |"
    yield "|---|---:|" + "---:|" * len(drops)
    for title, missing_share, sizes in (("half left out, half wrong", 0.5, SIZES), ("all wrong triples", 0.0, (300,))):
        for items in sizes:
            draw = np.random.default_rng(items)
            fail_shares = []
            for drop in drops:
                pairs = (two_models(draw, items, drop, missing_share) for _ in range(repetitions))
                fail_shares.append(sum(ours(before.rows, after.rows) == FAIL for before, after in pairs) / repetitions)
            yield f"| {title} | {items} | " + " | ".join(f"{100 * share:.1f} %" for share in fail_shares) + " |"


def speed_table() -> Iterator[str]:
    """Yield the table of the gate's processor time; on a shared machine, elapsed time depends on other programs."""
    yield "| what | CPU seconds | peak memory |"
    yield "|---|---:|---:|"
    with tempfile.TemporaryDirectory() as folder:
        gate_words = _write_gate_files(Path(folder), 1000)
        start_up_seconds = _processor_seconds([sys.executable, "-m", "sftchat", "plugins"])
        seconds = _processor_seconds([sys.executable, "-m", "sftchat", *gate_words])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        yield f"| `sftchat eval --replies --baseline`, 1,000 stored items, all 8 metrics, beyond start-up | {seconds - start_up_seconds:.2f} | {peak:.0f} MB |"
    before, after = two_models(np.random.default_rng(0), 1_000_000, 0.001)
    start_up_seconds = time.process_time()
    paired_difference(before, after, F1)
    metric_interval(F1, before)
    metric_interval(F1, after)
    seconds = time.process_time() - start_up_seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    yield f"| test and intervals of one metric, 1,000,000 items, 10,000 resamples | {seconds:.2f} | {peak:.0f} MB |"


def _write_gate_files(folder: Path, items: int) -> list[str]:
    """Write an evalset, two files of replies and a baseline of the relation task; return the arguments of the gate."""
    from sftchat.cli import main

    def name(kind: str) -> str:
        return str(folder / kind)

    main(["data", "generate", "relation", "-n", str(items), "--seed", "5", "--format", "evalset", "-o", name("gold.jsonl"), "--quiet"])
    rows = [json.loads(line) for line in Path(name("gold.jsonl")).read_text(encoding="utf-8").splitlines()]
    for kind, wrong in (("old", 7), ("new", 6)):
        lines = [
            json.dumps({"id": row.get("id") or f"row-{k + 1:06}", "reply": row["gold"] if k % wrong else "无"})
            for k, row in enumerate(rows)
        ]
        Path(name(f"{kind}.jsonl")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    sets = ["--task", "relation", "--evalset", name("gold.jsonl")]
    with_old = ["eval", *sets, "--replies", name("old.jsonl"), "--update-baseline", name("base.jsonl"), "--json"]
    subprocess.run([sys.executable, "-m", "sftchat", *with_old], check=True, capture_output=True)
    return ["eval", *sets, "--replies", name("new.jsonl"), "--baseline", name("base.jsonl"), "--json"]


def _processor_seconds(words: list[str]) -> float:
    """Return the processor time of a command, the minimum of three runs."""
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode not in (0, 1):
            raise SystemExit(done.stderr.decode())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    """Print the requested sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=["rules", "power", "speed", []], default=[])
    parser.add_argument("--repetitions", type=int, default=300)
    args = parser.parse_args()
    sections = {"rules": lambda: rules_table(args.repetitions), "power": lambda: power_table(args.repetitions), "speed": speed_table}
    for name in args.sections or sections:
        for line in sections[name]():
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
