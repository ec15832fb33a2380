"""Upstream's two scripts, given this project's shards and tokenizer where they look for their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gpu_check.constants import changed

# Run beside the project's prepare.py, for its Tokenizer. The argument is where upstream's looks for one.
TOKENIZER = """
import pickle, sys, torch, prepare
from pathlib import Path
found, folder = prepare.Tokenizer.load(), Path(sys.argv[1])
(folder / "tokenizer.pkl").write_bytes(pickle.dumps(found.encoding))
torch.save(torch.tensor(found.token_bytes, dtype=torch.int32), folder / "token_bytes.pt")
"""
# What can be tried of it without a GPU: that it reads what it was given, and that its train.py compiles.
DRY = """
import prepare
from pathlib import Path
tokenizer = prepare.Tokenizer.from_directory()
documents, _ = next(prepare._document_batches("val"))
print("documents:", len(documents), "tokens:", sum(map(len, tokenizer.encode(documents))))
compile(Path("train.py").read_text(), "train.py", "exec")
"""


def lay_out(
    scripts: Path,
    place: Path,
    shards: Path,
    experiment: Path,
    environment: Mapping[str, str],
    **constants: str,
) -> Path:
    """Put upstream's *scripts* in *place*, and what they read in a home folder there; return that folder.

    Args:
        scripts: a folder with upstream's prepare.py and train.py.
        place: a new folder.
        shards: a folder with the shards.
        experiment: the folder of the project's prepare.py, which has prepared the data.
        environment: of that prepare.py.
        constants: of upstream's prepare.py, changed.

    Raises:
        subprocess.CalledProcessError: the tokenizer could not be converted.
    """
    shutil.copy(scripts / "train.py", place)
    (place / "prepare.py").write_text(changed((scripts / "prepare.py").read_text(), constants))
    home = place / "home"
    cache = home / ".cache" / "autoresearch"
    for name in ("data", "tokenizer"):
        (cache / name).mkdir(parents=True)
    for file in shards.iterdir():
        (cache / "data" / file.name).symlink_to(file)
    subprocess.run(
        [sys.executable, "-c", TOKENIZER, str(cache / "tokenizer")],
        cwd=experiment,
        env=dict(environment) | {"PYTHONPATH": str(experiment)},
        check=True,
    )
    return home
