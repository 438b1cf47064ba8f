"""A third target for ``strength="auto"``: how far the noise moves the outputs.

    python experiments/auto_distance.py [--jobs 2] [--minutes 120]

The networks, settings and seeds of `auto_target.py`, to whose rows these belong; plain noise. The distance is the total
variation between class probabilities with and without noise, on one ghost batch an update, which takes two forward
passes of it. Finished runs are kept. Writes experiments/results/auto_distance.json.
"""

import argparse
from pathlib import Path

import command
from auto_target import NETWORKS, SEEDS
from provenance import write
from variants import Variant, distance_controller, run_variants

TARGETS = (0.03, 0.06, 0.12, 0.24)


def main() -> None:
    """Run everything and write the table."""
    jobs = command.parse(argparse.ArgumentParser()).jobs
    variants = [
        Variant(f"distance {target:g}, none", {"strength": 0.01}, distance_controller(target)) for target in TARGETS
    ]
    rows = []
    for network, common in NETWORKS.items():
        found = run_variants(Path("runs/auto-distance") / network, variants, common, SEEDS, jobs)
        rows += [
            {
                "network": network,
                "noise": variant.name,
                "options": {"distance": variant.change.target},  # type: ignore[union-attr]
                "holdout_accuracy": [run["holdout_accuracy_last"] for run in found[variant.name]],
                "errors": [],
            }
            for variant in variants
        ]
    for row in rows:
        print(f"{row['network']:8} {row['noise']:24} {row['holdout_accuracy']}")
    record = {"seeds": SEEDS, "common": NETWORKS, "rows": rows}
    print(write("auto_distance", "python experiments/auto_distance.py", record))


if __name__ == "__main__":
    main()
