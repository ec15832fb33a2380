"""The goals of the CUDA profile, and whether what was found meets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gpu_check.command import Found

ENFORCERS = "bwrap", "landlock"


class Goal(NamedTuple):
    """One line of the table."""

    name: str
    aim: str
    value: str
    """What was found, ``-`` if it was not."""
    verdict: str
    """``met``, ``missed``, ``not run``, or ``-`` for a figure without an aim."""


def goals(found: Mapping[str, Found]) -> list[Goal]:
    """Return the table; *found* has what each stage found, by its name."""
    ours, upstream = found.get("ours", {}), found.get("upstream", {})

    def figure(stage: str, key: str) -> float | None:
        value = found.get(stage, {}).get(key)
        return value if isinstance(value, int | float) else None

    def quotient(key: str) -> float | None:
        above, below = figure("ours", key), figure("upstream", key)
        return None if above is None or not below else above / below

    def beside(key: str) -> str:
        return f"ours {ours[key]}, upstream's {upstream.get(key)}" if key in ours else "-"

    rows = [
        _goal(
            "tokens/s, of upstream's", "at least 1.00, aim 1.03", quotient("tokens_per_second"), _least(1.0)
        ),
        Goal("MFU, %", "beside upstream's", beside("mfu_percent"), "-"),
        _goal("peak memory, of upstream's", "at most 1.00", quotient("peak_vram_mb"), _most(1.0)),
        _goal("first step, cold, s", "at most 35", figure("ours", "first_step_s"), _most(35)),
        _goal("first step, warm, s", "at most 12", figure("warm", "first_step_s"), _most(12)),
        _goal(
            "sealed minus in-process val_bpb",
            "below 5e-4",
            figure("ours", "sealed_minus_own"),
            lambda value: abs(value) < 5e-4,
        ),
        _goal(
            "sealing and scoring, 10 % probes, s",
            "at most 20",
            figure("sealed_bwrap", "sealed_and_scored_s"),
            _most(20),
        ),
    ]
    for enforcer in ENFORCERS:
        code = figure(f"campaign_{enforcer}", "exit_code")
        rows.append(_goal(f"campaign under {enforcer}, exit code", "0", code, _most(0)))
    return rows


def table(rows: list[Goal]) -> str:
    """Return the rows as text, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, lines))


def _goal(name: str, aim: str, value: float | None, is_met: Callable[[float], bool]) -> Goal:
    if value is None:
        return Goal(name, aim, "-", "not run")
    return Goal(name, aim, f"{value:.4g}", "met" if is_met(value) else "missed")


def _least(bound: float) -> Callable[[float], bool]:
    return lambda value: value >= bound


def _most(bound: float) -> Callable[[float], bool]:
    return lambda value: value <= bound
