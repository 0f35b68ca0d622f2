"""Kill commands at moments spread over their progress, run them again until they end, and print the results.

    python scripts/kill_moments.py              # 50 kills of eval, 30 of train, 10 each of the others
    python scripts/kill_moments.py --share 0.1  # a tenth of them
    python scripts/kill_moments.py --only train --seed 7

The commands use the embedded model with tiny settings, and SIGKILL goes to the process group. Results are equal when all files are equal byte for
byte; in JSON files, times are ignored.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.killing import HEADER, Killing, best_of, chat, chat_that_loads, distill, evaluation, served, training


def main() -> int:
    """Kill commands and print the table; return 1 when something was lost, locked, left behind or different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the kills to make")
    parser.add_argument(
        "--only", action="append", metavar="COMMAND", help="eval, server, train, best-of, distill, chat or loading; repeatable"
    )
    parser.add_argument("--seed", type=int, default=None, help="seed of the moments")
    args = parser.parse_args()
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    tallies = []
    with tempfile.TemporaryDirectory() as folder, served() as (server, _):
        killing = Killing(Path(folder), random.Random(seed))
        plans = {  # name: command, kills, kills before each finished result
            "eval": (evaluation(), 40, 5),
            "server": (server, 10, 5),
            "train": (training(), 30, 3),
            "best-of": (best_of(), 10, 3),
            "distill": (distill(), 10, 3),
            "chat": (chat(), 10, 5),
            "loading": (chat_that_loads(), 3, 1),
        }
        print(HEADER, flush=True)
        for name, (command, kills, kills_per_result) in plans.items():
            if args.only is None or name in args.only:
                tallies.append(killing.table(command, max(1, round(kills * args.share)), kills_per_result))
                print(tallies[-1].row(), flush=True)
    for tally in tallies:
        for failure in dict.fromkeys(tally.wrong):
            print(f"{tally.name}: {failure}")
    all_fine = all(tally.fine for tally in tallies)
    kills, results = sum(tally.kills for tally in tallies), sum(tally.results for tally in tallies)
    print(
        f"{kills} kills, {results} finished results, {sum(tally.equal for tally in tallies)} equal; seed {seed}; {'all well' if all_fine else 'NOT well'}"
    )
    return 0 if all_fine else 1


if __name__ == "__main__":
    sys.exit(main())
