"""The table of the claims, and a page of each: docs/claims/claim-N.md."""

from pathlib import Path
from typing import Any

from claim import CLAIMS
from provenance import RESULTS
from tables import read

FOLDER = Path(__file__).parents[1] / "docs" / "claims"


def table() -> list[str]:
    """Claim and verdict of each that was tested; writes their pages."""
    FOLDER.mkdir(exist_ok=True)
    lines = ["## Claims\n", "| claim | verdict |", "|---|---|"]
    for number in CLAIMS:
        path = RESULTS / f"claim-{number}.json"
        if path.is_file():
            record = read(path)
            (FOLDER / f"claim-{number}.md").write_text("\n".join(page(number, record)) + "\n", encoding="utf-8")
            lines.append(f"| [{number}](claims/claim-{number}.md). {record['claim']} | {record['verdict']} |")
    return lines


def page(number: int, record: Any) -> list[str]:
    """Claim, verdict, how it was measured, picture and numbers."""
    claim = CLAIMS[number]
    picture = claim.draw(record)
    return [
        f"# Claim {number}\n",
        f"**The claim:** {record['claim']}\n",
        f"**Verdict:** {record['verdict']}.\n",
        f"{claim.HOW}\n",
        f"`{record['command']}`; torch {record['torch']}, {record['device']}, commit `{record['commit'][:10]}`; "
        f"[the record](../../experiments/results/claim-{number}.json). [All evidence](../evidence.md)\n",
        f"![Claim {number}](../figures/{picture.name})\n",
        *claim.page(record),
    ]
