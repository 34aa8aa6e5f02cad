"""What the benchmarks share: interleaved timing, and a line about the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(tasks: Mapping[str, Callable[[], float]], *, repeats: int) -> dict[str, list[float]]:
    """Run every task once per round, so that a machine whose speed drifts slows all of them alike.

    Args:
        tasks: name -> function that works and returns how many units it did.
        repeats: counted rounds, after one that is not counted.

    Returns:
        Name -> units per second of each counted round.
    """
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            started = time.perf_counter()
            units = task()
            if turn:
                rates[name].append(units / (time.perf_counter() - started))
    return rates


def median_ratio(above: list[float], below: list[float]) -> float:
    """Median of the round-by-round ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def machine() -> str:
    """Processor, cores, memory."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123
        names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{names[0] if names else cpu}, {len(os.sched_getaffinity(0))} cores, {memory_gb:.0f} GB"


def spread(values: list[float]) -> str:
    """`median (min to max)`."""
    return f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})"
