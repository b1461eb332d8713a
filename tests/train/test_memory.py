import platform
import subprocess
import sys

import pytest

PAGES_ASKED_FOR = """
import resource, sys
import torch
from train import memory
if sys.argv[1] == "keep":
    assert memory.keep_freed()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(1, 33):
    torch.ones(size * 100_000)  # each is larger than what glibc would keep, having met those before it
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_what_tensors_gave_back_is_not_asked_for_again():
    def asked(mode):
        command = [sys.executable, "-c", PAGES_ASKED_FOR, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert 3 * asked("keep") < asked("leave")
