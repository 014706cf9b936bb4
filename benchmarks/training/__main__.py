"""What training, propagation and evaluation cost, beside peers, in one run on one machine.

    python -m benchmarks.training                   # every case, one after the other; the peers' environment is 1.6 GB
    python -m benchmarks.training propagation       # one of them; --help names them
    python -m benchmarks.training peers --budget 30 --ours benchmarks/results/FILE.json

Each case prints a table and writes benchmarks/results/training-CASE.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.training import als, evaluation, gpu, growth, losses, peers, propagation

CASES = ("propagation", "evaluation", "losses", "als", "peers", "growth", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES, help="default: all of them")
    parser.add_argument("--budget", type=float, default=120.0, help="CPU-seconds of training a peer, in `peers`")
    parser.add_argument("--quick", action="store_true", help="small sizes only, in `growth`")
    parser.add_argument(
        "--ours", type=Path, help="take our recipe's figures from this result of benchmarks.quality; one case only"
    )
    given = parser.parse_args()
    if given.ours is not None and given.case not in ("als", "peers"):
        parser.error("--ours goes with the case als (of the published split) or peers (of a hidden tenth of train).")
    console = Console(width=120)
    for case in CASES if given.case is None else (given.case,):
        if case == "propagation":
            propagation.run(console)
        elif case == "evaluation":
            evaluation.run(console)
        elif case == "losses":
            losses.run(console)
        elif case == "als":
            als.run(console, earlier=given.ours)
        elif case == "peers":
            peers.run(console, budget=given.budget, earlier=given.ours)
        elif case == "growth":
            growth.run(console, is_quick=given.quick)
        else:
            gpu.run(console)


if __name__ == "__main__":
    main()
