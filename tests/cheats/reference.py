"""What the honest come to in process: the shared model, sealed, and the score of every script by itself.

Run once, outside of everything that is tested here: it makes the data of all campaigns in AUTORESEARCH_CACHE,
and prints the scores as JSON. One process, for importing torch takes longer than all the rest.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import sys
import warnings
from pathlib import Path

EXPERIMENT = Path(__file__).parent / "experiment"


def main(scripts: list[str]) -> None:
    """Make the data, and run the scripts that are named by their paths."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(EXPERIMENT))
    import torch
    from torch import nn

    import prepare  # type: ignore[import-not-found]  # the miniature
    from pytest_autoresearch.scoring.export import seal

    class Shared(nn.Module):
        """Knows which token follows which, and how often."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(prepare.bigrams())

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.table[tokens]

    prepare.make()
    model = Shared().eval()
    sealed = seal(model, torch.zeros(4, prepare.MAX_SEQ_LEN, dtype=torch.int64))
    with (prepare.DATA / "shared.sealed").open("wb") as file:
        sealed.write(file)
    (prepare.DATA / "shared.digest").write_text(sealed.digest)
    scores = {"shared": prepare.evaluate_bpb(model, prepare.Tokenizer.load(), 64)}
    for script in scripts:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(script, run_name="__main__")
        (found,) = re.findall(r"^val_bpb: (.+)$", printed.getvalue(), re.MULTILINE)
        scores[Path(script).stem] = float(found)
    sys.stdout.write(json.dumps(scores))


if __name__ == "__main__":
    main(sys.argv[1:])
