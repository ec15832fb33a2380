"""Made-up text in the layout of climbmix, where the Hub's cache would have the real one."""

from __future__ import annotations

import concurrent.futures
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from numpy.typing import NDArray

DATASET = "datasets--karpathy--climbmix-400b-shuffle"
COMMIT = "0" * 39 + "1"
NUMBERS = (*range(10), 6542)  # the shards that both prepare.py read; the last one is held out
HELD_OUT = 3  # times as much text as in another: evaluation takes 21 million tokens of its first half
WORDS = 20_000


def folder(hub: Path) -> Path:
    """Return the folder of the shards in the Hub's cache *hub*."""
    return hub / DATASET / "snapshots" / COMMIT


def make(hub: Path, megabytes: float) -> None:
    """Write the shards, of so many megabytes of text each, unless they are there."""
    named = hub / DATASET / "refs" / "main"
    if named.exists():
        return
    folder(hub).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, length)) for length in rng.integers(2, 11, WORDS)])
    write = functools.partial(_write, folder(hub), megabytes, words, rng.permutation(WORDS))
    with concurrent.futures.ProcessPoolExecutor() as pool:
        list(pool.map(write, NUMBERS))
    named.parent.mkdir(exist_ok=True)
    named.write_text(COMMIT)  # last: it stands for all of them


def _write(
    place: Path, megabytes: float, words: NDArray[np.str_], after: NDArray[np.int64], number: int
) -> None:
    """Write one shard: *words* by Zipf's law, but in half of all places the one *after* the last."""
    rng = np.random.default_rng(number)
    count = int(megabytes * 1e6 / 6.5) * (HELD_OUT if number == NUMBERS[-1] else 1)
    drawn = np.minimum(rng.zipf(1.25, count) - 1, WORDS - 1)
    drawn[1:] = np.where(rng.random(count - 1) < 0.5, after[drawn[:-1]], drawn[1:])
    ends = np.cumsum(np.clip(rng.lognormal(5.6, 1.0, count // 100 + 1), 20, 8000).astype(int))
    parts = np.split(drawn, ends[ends < count])
    text = [" ".join(words[part]) + "." for part in parts]
    pq.write_table(pa.table({"text": text}), place / f"shard_{number:05d}.parquet", row_group_size=1024)
