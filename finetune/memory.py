"""Memory: kept from update to update on a CPU; and what to do when it does not suffice, tried out, not guessed."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..errors import InputError
from ..heads.training.settings import FinetuneSettings

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Names of settings in malloc.h."""
_CPU_SIGNS = (
    *("can't allocate memory", "not enough memory", "could not allocate", "bad_alloc"),
    *("could not create a", "could not execute a"),  # oneDNN's primitives: unsupported ones it is never asked for
)


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep what an update frees for the next one, in this process from now on.

    It would give every large block back to the system, which clears each page of it again: up to 45 % of the time of
    an update on a CPU. The process holds about a fifth more in return, so nothing is kept where its address space is
    limited (ulimit -v). Elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    import resource  # not there on Windows

    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # no block of its own for a large request
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or the machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)


def free_memory() -> None:
    """Give back what a failed update held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(
    settings: FinetuneSettings, *, num_clips: int, fits: Callable[[int], bool] | None, checkpointing: bool
) -> InputError:
    """The error that says which option to lower and by how much.

    Args:
        settings: of the run.
        num_clips: clips that went through the network at once, in this process, when the memory ran out.
        fits: whether so many clips go through now; None where it cannot be tried.
        checkpointing: whether blocks are computed twice already.
    """
    parts_now = settings.accumulate
    fewest_parts = next((parts for parts in range(2, num_clips + 1) if num_clips % parts == 0), 0)
    cures = [f"--accumulate {parts_now * fewest_parts}"] if fewest_parts else []
    if fits is not None:
        fitting = next((clips for clips in range(num_clips - 1, 0, -1) if num_clips % clips == 0 and fits(clips)), 0)
        cures = []
        if fitting:
            parts = parts_now * num_clips // fitting
            clips = "one clip" if fitting == 1 else f"{fitting} clips"
            cures = [f"--accumulate {parts} ({clips} at once: tried just now, it fits)"]
    if not checkpointing:
        cures.append("--checkpointing (blocks are computed twice)")
    if not any("fits" in cure for cure in cures):
        cures.append(_smaller_clips(settings))
    return InputError(
        "out of memory",
        got=f"{num_clips} clips of {settings.clip_len} steps at once",
        wanted="a part of a batch that fits" if num_clips > 1 else "a clip that fits",
        cure="; or ".join(cures),
    )


@contextmanager
def memory_told(settings: FinetuneSettings) -> Iterator[None]:
    """Outside of updates: where clips are read, or matches validated.

    Raises:
        InputError: the memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        got = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    else:
        return
    raise InputError(
        "out of memory between two updates",
        got=got,
        wanted=f"room for {2 * settings.batch} clips of pictures beside the network",
        cure=f"--batch {max(1, settings.batch // 2)}; or {_smaller_clips(settings)}",
    )


def _smaller_clips(settings: FinetuneSettings) -> str:
    return f"--clip-len {max(1, settings.clip_len // 2)} or a --size of half the pixels (half the memory each)"
