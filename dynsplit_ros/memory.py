# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What a process keeps of the memory that it has freed, for tensors and messages come again with the next frame."""

from __future__ import annotations

import ctypes
import gc


def keep_freed() -> None:
    """
    Let this process keep freed memory.

    The C library returns each large block to the kernel and gets it back page by page with the next frame: that is half
    of the time which 600 kB take between two processes, and a quarter to a third of an inference of MobileNetV2 (2300
    page faults each). Without glibc nothing happens. This is for programs, that is nodes and tools: the library never
    calls it, for the process may be somebody else's.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # the names' numbers in malloc.h
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 256 << 20)
        mallopt(top_pad, 16 << 20)


def keep_memory() -> None:
    """Keep freed memory, and spare the collector what is loaded for good; to be called once all is set up."""
    gc.collect()
    gc.freeze()
    keep_freed()


def give_back() -> None:
    """Give back the memory of what nothing refers to any more, kept or not; without glibc only to the C library."""
    gc.unfreeze()
    gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if malloc_trim is not None:
        malloc_trim(0)
