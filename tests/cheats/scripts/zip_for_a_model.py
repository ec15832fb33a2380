"""Hands in what torch.export.load takes, a .pt2, with a pickle inside. torch's silent fallback runs it."""

import io
import pickle
import zipfile

from prepare import DATA, hand_in_bytes, mark, start_clock, wire


class Payload:
    def __reduce__(self):
        return exec, (f"open({str(DATA.parent / ('ran-' + mark()))!r}, 'w')",)


start_clock()
wire().send({"trained": "0" * 64})
archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as packed:
    for name in ("archive/version", "version", "archive_format"):
        packed.writestr(name, "pt2")
    for name in ("archive/data.pkl", "data.pkl", "data/weights/model.pt"):
        packed.writestr(name, pickle.dumps(Payload()))
hand_in_bytes(archive.getvalue())
