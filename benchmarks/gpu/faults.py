"""Probe which faults a GPU survives, each in a separate process."""

import os
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.gpu.report import CUDA, say

FAULTS: Mapping[str, str] = {
    "an index beyond a tensor": "torch.zeros(4, device='cuda')[torch.tensor([9], device='cuda')].sum().item()",
    "a wrong class in cross entropy": "torch.nn.functional.cross_entropy(torch.zeros(2, 3, device='cuda'), torch.tensor([7, 0], device='cuda')).item()",
    "no memory for a product": "torch.cuda.set_per_process_memory_fraction(1e-4); a = torch.zeros(512, 512, device='cuda'); (a @ a).sum().item()",
    "no memory on the whole card": "torch.zeros(3)\nx = torch.zeros(torch.cuda.mem_get_info()[0] - (1 << 24), dtype=torch.uint8, device='cuda'); a = torch.zeros(512, 512, device='cuda'); (a @ a).sum().item()",
    "a grid that is too large": "torch.zeros(1, device='cuda').expand(2**33).cumsum(0)[0].item()",
    "a tensor of 2^33 bytes that is freed": "torch.zeros(2**33, dtype=torch.uint8, device='cuda').sum().item()",
}
"""Faults on a device, one program each; `FAULT` shows whether a small kernel still runs afterwards."""


FAULT = """
import torch
torch.zeros(1, device="cuda").item()
try:
    exec({program!r})
    print("no error")
except BaseException as error:
    print(type(error).__mro__[:3], str(error)[:160].replace(chr(10), " "))
try:
    torch.ones(8, device="cuda").sum().item(); torch.cuda.synchronize(); print("alive")
except BaseException as error:
    print("dead:", type(error).__name__, str(error)[:80].replace(chr(10), " "))
"""


def faults() -> None:
    """Provoke each fault in a separate process, and check whether the device still computes."""
    if not CUDA:
        return
    say("## Faults")
    running = {
        what: subprocess.Popen(
            [sys.executable, "-c", FAULT.format(program=program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for what, program in FAULTS.items()
        if "whole card" not in what
    }
    for what, process in running.items():
        say(f"- {what}: {' | '.join(process.communicate(timeout=40)[0].splitlines())}")
    [(what, program)] = [(what, program) for what, program in FAULTS.items() if "whole card" in what]
    alone = subprocess.run(
        [sys.executable, "-c", FAULT.format(program=program)], capture_output=True, text=True
    )
    say(f"- {what}: {' | '.join(alone.stdout.splitlines())}")
    # the option of the image
    program = "from service.engine import device as d; from service.losses import CATALOGUE; import torch; d.warm_up(torch.device('cuda:0'), list(CATALOGUE.values())[:40]); print(torch.cuda.memory_reserved() >> 20, 'MiB')"
    env = {**os.environ, "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    alone = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    say(f"- expandable segments: {alone.stdout.strip() or alone.stderr[-300:]}")
