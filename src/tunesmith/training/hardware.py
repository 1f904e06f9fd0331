"""How busy and how full the machine is while a run goes on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

from ..machine import memory

MB = 2**20


class Hardware:
    """What the process and its machine are at; shares of time are those since the last look."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device, self.process = folder, device, psutil.Process()
        self.look()  # the first says nothing of how busy it is

    def look(self) -> dict[str, float]:
        """Figures by name; those that this system does not tell are not there."""
        there = memory()
        found = {
            "cpu_percent": psutil.cpu_percent(None),
            "memory_percent": 100 * (1 - there.free / there.total),
        }
        with suppress(psutil.Error, OSError):
            found["process_cpu_percent"] = self.process.cpu_percent(None)
            found["process_memory_mb"] = self.process.memory_info().rss / MB
        with suppress(OSError):
            found["disk_free_gb"] = psutil.disk_usage(str(self.folder)).free / 2**30
        with suppress(psutil.Error, OSError, AttributeError):  # macOS counts none
            moved = self.process.io_counters()
            found |= {"disk_read_mb": moved.read_bytes / MB, "disk_written_mb": moved.write_bytes / MB}
        if self.device.type == "cuda":
            found |= gpu(self.device)
        return {f"machine/{name}": round(value, 3) for name, value in found.items()}


def gpu(device: torch.device) -> dict[str, float]:
    """The same of a GPU; how busy it is, where NVIDIA's library is there to ask."""
    free, total = torch.cuda.mem_get_info(device)
    found = {
        "gpu_memory_percent": 100 * (total - free) / total,
        "process_gpu_memory_mb": torch.cuda.memory_allocated(device) / MB,
        "process_gpu_memory_peak_mb": torch.cuda.max_memory_allocated(device) / MB,
    }
    with suppress(Exception):  # of the library, which is there or not, and may ask or not
        found["gpu_percent"] = float(torch.cuda.utilization(device))
        found["gpu_temperature"] = float(torch.cuda.temperature(device))
    return found
