"""Fills its folder, and leaves all of it."""

from pathlib import Path

from prepare import hand_in_shared_model, mark

for number in range(20):
    folder = Path(f"{mark()}-{number}")
    folder.mkdir()
    for part in range(100):
        (folder / str(part)).write_bytes(bytes(1 << 14))
    folder.chmod(0o000 if number % 2 else 0o500)

hand_in_shared_model()
