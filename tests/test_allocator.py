"""How the commands' process allocates."""

import subprocess
import sys

import pytest

# page faults of filling 256 MiB for the second time, a page less: an aligned allocation of the same
# size does not fit into the gap that the first one left
FILL = """
import resource, torch
from nettailor.core.device import start_accelerator
from nettailor.core.allocator import keep_freed_memory
{first}
for size in (65536, 65535):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1024 * size)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def faults(first: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FILL.format(first=first)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_freed_is_filled_again_without_new_pages():
    assert faults("pass") > 100
    for start in ("start_accelerator('cpu', 'float32')", "keep_freed_memory()"):
        assert faults(start) < 10
