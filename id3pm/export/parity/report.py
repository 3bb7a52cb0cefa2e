"""The verdict over a parity comparison, and the table that shows it."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from id3pm.engines.manifest import Parity


def misses(parity: Parity) -> list[str]:
    """The missed thresholds, in words; empty if the engine passed. NaN never passes."""
    found = []
    limit = parity.thresholds["relative_error"]
    worst = _worst([row["relative_error"] for row in parity.forward])
    if not worst <= limit:
        found.append(f"relative error {worst:.2g} of a forward pass (at most {limit:g})")
    if parity.thresholds["batch_invariant"] and not parity.batch_invariant:
        found.append("a row's result depends on the batch it is in")
    psnr, lowest = parity.trajectory["psnr_db"], parity.thresholds["psnr_db"]
    if not psnr >= lowest:
        found.append(f"PSNR {psnr:.1f} dB of a final image (at least {lowest:g} dB)")
    limit = parity.thresholds.get("identity_cosine")
    cosine = parity.trajectory.get("identity_cosine")
    if limit is not None and cosine is not None and not cosine >= limit:
        found.append(f"identity cosine {cosine:.4f} of a final image (at least {limit:g})")
    return found


def table(title: str, parity: Parity) -> Table:
    """The measurements and their limits as a table for a terminal."""
    limits = parity.thresholds
    grid = Table("comparison", "max abs error", "relative error", "limit", "", title=title, title_justify="left")
    for row in parity.forward:
        ok = row["relative_error"] <= limits["relative_error"]
        name = f"forward t={row['timestep']:g} {row['condition']}".rstrip()
        grid.add_row(
            name,
            f"{row['max_abs_error']:.1e}",
            f"{row['relative_error']:.1e}",
            f"{limits['relative_error']:.0e}",
            _mark(ok),
        )
    sizes = ", ".join(str(size) for size in parity.forward[0]["batch_sizes"])
    required = "equal bits" if limits["batch_invariant"] else "recorded"
    answer = "equal bits" if parity.batch_invariant else "differ"
    ok = bool(parity.batch_invariant) or not limits["batch_invariant"]
    grid.add_row(f"rows in batches of {sizes}", "", answer, required, _mark(ok))
    if company := parity.company:
        among = f"PSNR {company['psnr_db']:.1f} dB, {company['max_levels']} of 255"
        grid.add_row("an image alone and among others", "", among, "recorded", _mark(True))
    run = parity.trajectory
    grid.add_row(
        f"{run['images']} image(s), {run['sampler']} {run['steps']} steps, guidance {run['guidance_scale']:g}",
        f"{run['max_abs_error']:.1e}",
        f"PSNR {run['psnr_db']:.1f} dB",
        f"{limits['psnr_db']:g} dB",
        _mark(run["psnr_db"] >= limits["psnr_db"]),
    )
    if (cosine := run.get("identity_cosine")) is not None:
        lowest = limits["identity_cosine"]
        grid.add_row("their ID vectors", "", f"cosine {cosine:.4f}", f"{lowest:g}", _mark(cosine >= lowest))
    elif (reason := run.get("identity_not_compared")) is not None:
        grid.add_row(f"their ID vectors: not compared, {reason}", "", "", "", "")
    return grid


def _mark(ok: bool) -> str:
    return "[green]ok[/green]" if ok else "[bold red]MISS[/bold red]"


def _worst(errors: list[float]) -> float:
    """The largest; NaN if any is."""
    return float(np.max(errors))
