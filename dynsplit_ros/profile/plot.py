# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Draw a profile: where the time goes at each cut, beside how many bytes it sends."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from dynsplit_ros.profile.profile import Profile


def plot_profile(profile: Profile, path: str | Path) -> None:
    """Write the plot of ``profile``, for batch 1, to ``path``; the suffix (.png, .pdf, .svg) tells the format."""
    figure = Figure(figsize=(1.1 * len(profile.cuts) + 4, 6), layout='constrained')
    times, sizes = figure.subplots(2, 1, sharex=True)
    places = list(range(len(profile.cuts)))
    head = [1000 * cut.head_s[1] for cut in profile.cuts]
    tail = [1000 * cut.tail_s[1] for cut in profile.cuts]
    times.bar(places, head, label='head', color='tab:blue')
    times.bar(places, tail, bottom=head, label='tail', color='tab:orange')
    times.set_ylabel('time here (ms)')
    times.legend(loc='lower right')
    times.set_title(
        f'{profile.model} on {profile.measured.get("processor", profile.device)}, {profile.threads} threads'
    )
    names = list(dict.fromkeys(name for cut in profile.cuts for name in cut.codecs))
    for name in names:
        points = [
            (at, cut.codecs[name].payload_bytes[1] / 1024) for at, cut in enumerate(profile.cuts) if name in cut.codecs
        ]
        sizes.plot(*zip(*points), marker='o', label=name)
    sizes.set_yscale('log')
    sizes.set_ylabel('payload (KiB)')
    sizes.legend(fontsize='small', ncols=2)
    sizes.set_xticks(places, [f'{cut.index}\n{cut.name}' for cut in profile.cuts], rotation=60, fontsize='small')
    for axes in (times, sizes):
        axes.grid(axis='y', alpha=0.3)
    figure.savefig(Path(path), dpi=120)
