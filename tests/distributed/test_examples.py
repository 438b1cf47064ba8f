"""The examples run as their first lines say."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_fsdp():
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*words, str(EXAMPLES / "fsdp.py")], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    losses = [float(number) for number in re.findall(r"loss (\d\.\d{4})$", ran.stdout, re.MULTILINE)]
    assert len(losses) == 20
    assert losses[-1] < 0.7 * losses[0]
