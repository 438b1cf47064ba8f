"""The claims of the paper and of this project, one by one, each with its figures and a verdict either way.

    python experiments/claims.py [1 2 3 ...] [--jobs 2] [--minutes 120]

Claims 1 to 3 are about the mathematics and are computed; 5 to 7 train the MLP on MNIST-1D, at settings that nobody
tuned, with seeds of their own; 4 and 8 read what `pairs.py`, the demo and `experiments/sharpness` have measured. Each
is a module in experiments/claim. Finished runs are kept. Writes experiments/results/claim-N.json; `page.py` makes a
page of each.
"""

import argparse

import command
from claim import CLAIMS
from provenance import write


def main() -> None:
    """Test the claims that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("claims", nargs="*", type=int, choices=list(CLAIMS), default=list(CLAIMS))
    given = command.parse(parser)
    for number in given.claims:
        claim = CLAIMS[number]
        record = {"claim": claim.CLAIM, **claim.measure(given.jobs)}
        path = write(f"claim-{number}", f"python experiments/claims.py {number}", record)
        print(f"{number}. {claim.CLAIM}\n   {record['verdict']}\n   {path}", flush=True)


if __name__ == "__main__":
    main()
