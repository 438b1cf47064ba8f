import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from smoothout.train import workers


def square(value):
    if value < 0:
        raise ValueError(f"value is {value}; expected a number >= 0.")
    return value * value, os.getpid(), torch.get_num_threads(), signal.getsignal(signal.SIGINT)


def test_one_worker_is_this_process():
    results = dict(workers.each(square, [1, 2, 3], 1))
    assert {task: result[0] for task, result in results.items()} == {1: 1, 2: 4, 3: 9}
    assert {result[1] for result in results.values()} == {os.getpid()}


def test_two_workers_share_the_threads_of_this_process_and_leave_ctrl_c_alone(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    results = dict(workers.each(square, [1, 2, 3], 2))
    assert {task: result[0] for task, result in results.items()} == {1: 1, 2: 4, 3: 9}
    assert os.getpid() not in {result[1] for result in results.values()}
    assert {result[2] for result in results.values()} == {1}
    assert {result[3] for result in results.values()} == {signal.SIG_IGN}


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    [worker] = map(int, killed.stdout.split())
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


KILLED = """
import os
import signal

from smoothout.train.workers import processes

if __name__ == "__main__":
    with processes(1, "smoothout.train.workers") as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_error_in_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="value is -1; expected"):
        list(workers.each(square, [1, -1, 2], 2))
