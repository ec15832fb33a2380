"""How often causality probes miss a model that looks ahead seldom, and what that may bring it.

    python benchmarks/probes.py [--times 100]

It prints two tables in Markdown: what follows from the number of probes, and what a model that looks ahead
comes to that is really probed, so many times. Two minutes on a CPU.
"""

from __future__ import annotations

import argparse
import math
import sys

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it

from pytest_autoresearch.scoring.causality import CausalityProbes
from pytest_autoresearch.scoring.evaluation import THOROUGH, TOLERANCE

CPU, CUDA = 256, 10_240  # rows of validation text in the two profiles
SHARE = 0.1  # of the rows that is probed in every trial
MODES = {
    "a trial, CPU": math.ceil(SHARE * CPU),
    "a keep, CPU": max(THOROUGH, CPU),
    "a trial, GPU": math.ceil(SHARE * CUDA),
    "a keep, GPU": max(THOROUGH, CUDA),
}
RATES = tuple(2**power for power in range(5, 15))  # looks ahead at one position in so many
TRIED = ((32, SHARE, 1), (128, SHARE, 1), (512, 1.0, THOROUGH), (1024, 1.0, THOROUGH), (2048, 1.0, THOROUGH))
VOCABULARY = 64
FURTHEST = 4.5  # standard deviations between what is counted and what is computed


def missed(every: int, probes: int) -> float:
    """Return how likely *probes* miss who looks ahead at one position in *every*."""
    return (1 - 1 / every) ** probes


def worth(probes: int) -> float:
    """Return the largest share of the score that looking ahead gains on the mean, if it is seldom enough.

    At a share f of positions it gains f of the score, if it is missed: f (1 - f)^n, most at f = 1 / (n + 1).
    """
    return missed(probes + 1, probes) / (probes + 1)


def predicted() -> None:
    """Print what follows from the numbers of probes."""
    print("| looks ahead at one position in | " + " | ".join(MODES) + " |")
    print("|---|" + "---|" * len(MODES))
    print("| *probes* | " + " | ".join(f"{count:,}" for count in MODES.values()) + " |")
    for every in RATES:
        shares = (percent(missed(every, count)) for count in MODES.values())
        print(f"| {every:,} | " + " | ".join(shares) + " |")
    most = (f"{100 * worth(count):.3f} % at 1 in {count + 1:,}" for count in MODES.values())
    print("| *most that it gains on the mean* | " + " | ".join(most) + " |")


def percent(share: float) -> str:
    """Return a share as a table has it."""
    return f"{100 * share:.1f} %" if share >= 5e-4 else f"{share:.0e}" if share > 1e-12 else "0"


def chosen(tokens: torch.Tensor, every: int) -> torch.Tensor:
    """Return one position in *every*, by the last three tokens; not the last one, which nothing follows."""
    now, before, first = tokens[:, 2:-1], tokens[:, 1:-2], tokens[:, :-3]
    return F.pad((now * 7919 + before * 104729 + first * 1299709) % every == 0, (2, 1))


def surprise(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the nats of each target."""
    return F.cross_entropy(logits.mT, targets, reduction="none")


def counted(every: int, share: float, least: int, times: int) -> tuple[float, float]:
    """Return how often of *times* a model that looks ahead is missed, and how often it should be."""
    tokens = torch.randint(VOCABULARY, (CPU, 257), generator=torch.Generator().manual_seed(every))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]

    def model(tokens: torch.Tensor) -> torch.Tensor:
        ahead = 9.0 * F.one_hot(tokens.roll(-1, 1), VOCABULARY)
        return torch.where(chosen(tokens, every)[..., None], ahead, 0.0)

    surprises, count, number = surprise(model(inputs), targets), 0, 0
    for _ in range(times):
        probes = CausalityProbes([1] * VOCABULARY, share, least)
        probes(inputs, targets, torch.ones_like(inputs, dtype=torch.bool), surprises)
        probes.run(model, surprise)
        count += not probes.caught(TOLERANCE)
        number = len(probes.changes)
    seen = chosen(inputs, every).double().mean().item() * (1 - 1 / VOCABULARY)  # else the token is the same
    return count / times, (1 - seen) ** number


def main() -> int:
    """Print both tables, and return 1 if they do not agree."""
    parser = argparse.ArgumentParser(description="how often looking ahead seldom is missed")
    parser.add_argument("--times", type=int, default=100, help="that each model is probed")
    times = parser.parse_args().times
    torch.set_num_threads(1)
    predicted()
    print(f"\n| one position in | probes | missed, of {times} | computed |\n|---|---|---|---|")
    apart = 0.0
    for every, share, least in TRIED:
        found, expected = counted(every, share, least, times)
        print(
            f"| {every:,} | {max(least, math.ceil(share * CPU)):,} | {found:.0%} | {expected:.1%} |",
            flush=True,
        )
        apart = max(apart, abs(found - expected) / math.sqrt(expected * (1 - expected) / times))
    return int(apart > FURTHEST)


if __name__ == "__main__":
    sys.exit(main())
