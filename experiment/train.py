"""
Trains a GPT for TIME_BUDGET seconds and prints its bits per byte on the validation split.

    python experiment/train.py

This is the file to change: architecture, optimizer, schedule, sizes, all of it. The constants below hold
the first things to try; `per_device` gives each profile its own value.
"""

import gc
import itertools
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from prepare import (
    DEVICE,
    MAX_SEQ_LEN,
    SEED,
    TIME_BUDGET,
    Tokenizer,
    clock,
    device_name,
    evaluate_bpb,
    flash_attention,
    gpu_memory_gb,
    make_dataloader,
    peak_memory_mb,
    per_device,
    trace,
)

# ---------------------------------------------------------------------------
# Constants. Behind a `tune:` is what the tuner may do with one, where its name does not say enough

DEPTH = per_device(cuda=8, cpu=4)  # transformer layers
ASPECT_RATIO = per_device(cuda=64, cpu=16)  # width per layer of depth
HEAD_DIM = per_device(cuda=128, cpu=32)  # of each attention head; the width is rounded up to a multiple
TOTAL_BATCH_SIZE = per_device(cuda=2**19, cpu=2**12)  # tokens per optimizer step
# Turing and Volta only emulate bfloat16, and float16 would need its loss scaled
HAS_BFLOAT16 = DEVICE.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
DTYPE = per_device(cuda="bfloat16" if HAS_BFLOAT16 else "float32", cpu="float32")  # weights stay float32
# 128 rows take 45 GB in bfloat16; where there is less, gradients are accumulated over more passes
ROWS_IN_MEMORY = 0.85 * gpu_memory_gb() / (0.36 if DTYPE == "bfloat16" else 0.72)
DEVICE_BATCH_SIZE = per_device(cuda=2 ** int(math.log2(min(ROWS_IN_MEMORY, 128))), cpu=16)  # rows of a pass

WINDOW_PATTERN = per_device(cuda="SSSL", cpu="L")  # L sees all, S half; tune: "L" | "SL" | "SSSL"
GATE_CHANNELS = 32  # of the residual stream that a value embedding's gate looks at; tune: fixed
ROTARY_BASE = 10000  # wavelengths of the rotary embedding go up to this, times 2 pi; tune: fixed
SOFTCAP = 15.0  # bound of the logits; 0 for none

EMBEDDING_LR = 0.6  # AdamW, token and value embeddings, at width 768
UNEMBEDDING_LR = 0.004  # AdamW, language model head, at width 768
SCALAR_LR = 0.5  # AdamW, x0 lambdas; a hundredth of it for the residual lambdas
ADAM_BETAS = (0.8, 0.95)  # of AdamW's averages
X0_BETAS = (0.96, 0.95)  # of those for the x0 lambdas
MATRIX_LR = 0.04  # Muon, every matrix inside a layer
WEIGHT_DECAY = 0.2  # Muon, falling to 0 over the budget
MUON_MOMENTUM = 0.95  # Muon, once warm
MUON_MOMENTUM_START = 0.85  # Muon, at the first step
MUON_MOMENTUM_STEPS = 300  # steps from the one to the other
MUON_BETA2 = 0.95  # Muon, average of the variance per neuron
WARMUP_RATIO = 0.0  # share of the budget over which learning rates rise from 0
WARMDOWN_RATIO = 0.5  # share of the budget over which they fall to the final ones
FINAL_LR_FRAC = 0.0  # final learning rates, as a share of the full ones

COMPILE = per_device(cuda=True, cpu=False)  # on a CPU compiling takes longer than training
MAX_LOSS = 100.0  # beyond it the run has failed
PEAK_FLOPS = {  # dense bfloat16 per second, by what is in the name of a GPU: the first one that is
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H100": 989.5e12,
    "H200": 989.5e12,
    "A100": 312e12,
}

assert DEPTH >= 1
assert HEAD_DIM % 2 == 0  # rotary embeddings turn pairs
assert TOTAL_BATCH_SIZE >= MAX_SEQ_LEN
assert TOTAL_BATCH_SIZE % MAX_SEQ_LEN == 0
assert TOTAL_BATCH_SIZE // MAX_SEQ_LEN % min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // MAX_SEQ_LEN) == 0
assert WARMUP_RATIO + WARMDOWN_RATIO <= 1

WIDTH = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM
BATCH_ROWS = min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // MAX_SEQ_LEN)
MICRO_STEPS = TOTAL_BATCH_SIZE // MAX_SEQ_LEN // BATCH_ROWS

# ---------------------------------------------------------------------------
# Model


flash = flash_attention(HEAD_DIM, DTYPE)


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)


def attend(q, k, v, window):
    """Causal attention of (B, T, heads, channels) to oneself and the `window` tokens before."""
    T = q.size(1)
    if flash is not None and not torch.compiler.is_exporting():
        return flash(q, k, v, causal=True, window_size=(window, 0))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if window >= T - 1:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        back = torch.arange(T, device=q.device)[:, None] - torch.arange(T, device=q.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back <= window))
    return y.transpose(1, 2)


class Linear(nn.Linear):
    """Without bias; its float32 weight is cast to the input's type, in the open: that can be exported."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype))


class Attention(nn.Module):
    """Causal attention with rotary positions, normalised queries and keys, and gated value embeddings."""

    def __init__(self, window, gated):
        super().__init__()
        self.window = window
        self.q = Linear(WIDTH, WIDTH)
        self.k = Linear(WIDTH, WIDTH)
        self.v = Linear(WIDTH, WIDTH)
        self.gate = Linear(min(GATE_CHANNELS, WIDTH), WIDTH // HEAD_DIM) if gated else None
        self.out = Linear(WIDTH, WIDTH)

    def forward(self, x, value, cos, sin):
        heads = (*x.shape[:2], WIDTH // HEAD_DIM, HEAD_DIM)
        q, k, v = self.q(x).view(heads), self.k(x).view(heads), self.v(x).view(heads)
        if value is not None:  # ResFormer, arXiv:2410.17897: here each head decides how much, from 0 to twice
            gate = 2 * torch.sigmoid(self.gate(x[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value.view(heads)
        q, k = norm(rotate(q, cos, sin)), norm(rotate(k, cos, sin))
        return self.out(attend(q, k, v, self.window).flatten(2))


class MLP(nn.Module):
    """Squared ReLU between two matrices, arXiv:2109.08668."""

    def __init__(self):
        super().__init__()
        self.up = Linear(WIDTH, 4 * WIDTH)
        self.down = Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, window, gated):
        super().__init__()
        self.attention = Attention(window, gated)
        self.mlp = MLP()

    def forward(self, x, value, cos, sin):
        x = x + self.attention(norm(x), value, cos, sin)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """Each layer also sees the embeddings the stream began with; every second one looks up its own values."""

    def __init__(self, vocab_size):
        super().__init__()
        windows = [MAX_SEQ_LEN if c == "L" else MAX_SEQ_LEN // 2 for c in WINDOW_PATTERN]
        windows = [windows[i % len(windows)] for i in range(DEPTH - 1)] + [MAX_SEQ_LEN]
        gated = [i % 2 == (DEPTH - 1) % 2 for i in range(DEPTH)]  # so that the last layer is
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.values = nn.ModuleList(nn.Embedding(vocab_size, WIDTH) if g else None for g in gated)
        self.blocks = nn.ModuleList(map(Block, windows, gated))
        self.resid_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), 0.1))
        self.head = Linear(WIDTH, vocab_size)
        angles = torch.outer(
            torch.arange(MAX_SEQ_LEN), ROTARY_BASE ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        )
        self.register_buffer("cos", angles.cos()[:, None].to(getattr(torch, DTYPE)), persistent=False)
        self.register_buffer("sin", angles.sin()[:, None].to(getattr(torch, DTYPE)), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """Every block begins as the identity: what writes to the stream is zero, what reads has unit gain."""
        bound = math.sqrt(3 / WIDTH)
        for weight in self.blocks.parameters():
            weight.uniform_(-bound, bound)
        for block in self.blocks:
            block.attention.out.weight.zero_()
            block.mlp.down.weight.zero_()
            if block.attention.gate is not None:
                block.attention.gate.weight.zero_()
        for weight in self.values.parameters():
            weight.uniform_(-bound, bound)
        self.embedding.weight.normal_(std=1.0)
        self.head.weight.normal_(std=0.001)

    def forward(self, tokens, targets=None):
        """The logits (B, T, vocabulary), or, given targets, their mean loss: one graph for the compiler."""
        cos, sin = self.cos[: tokens.size(1)], self.sin[: tokens.size(1)]
        x = x0 = norm(self.embedding(tokens).to(cos.dtype))
        for i, (block, values) in enumerate(zip(self.blocks, self.values, strict=True)):
            x = self.resid_lambdas[i].to(x.dtype) * x + self.x0_lambdas[i].to(x.dtype) * x0
            x = block(x, values(tokens).to(x.dtype) if values is not None else None, cos, sin)
        logits = self.head(norm(x)).float()
        if SOFTCAP:
            logits = SOFTCAP * torch.tanh(logits / SOFTCAP)
        return logits if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def flops_per_token(self):
        """Forward and backward: 6 per matrix weight, 12 per channel and token attended to; no look-ups."""
        matrices = sum(p.numel() for p in self.blocks.parameters()) + self.head.weight.numel()
        return 6 * matrices + sum(12 * WIDTH * block.attention.window for block in self.blocks)


# ---------------------------------------------------------------------------
# Optimizers

POLAR_EXPRESS = (  # quintic coefficients of the five iterations, arXiv:2505.16932
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(matrices):
    """The nearest semi-orthogonal matrix, or about: the singular values pushed to 1 by products alone."""
    x = matrices.to(getattr(torch, DTYPE))
    x = x.mT if x.size(-2) > x.size(-1) else x  # the Gram matrix of the shorter side is the cheaper
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-6)
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if matrices.size(-2) > matrices.size(-1) else x).to(matrices.dtype)


def muon_update(weights, grads, velocity, variance, lr, momentum, weight_decay):
    """One step for a stack of matrices; the last three are tensors, lest each new value recompile it."""
    velocity.mul_(momentum).add_((1 - momentum) * grads)
    update = orthogonalize(momentum * velocity + (1 - momentum) * grads)
    # NorMuon, arXiv:2510.05491: even out the neurons, then give the whole its norm back
    dim = -1 if variance.size(-1) == 1 else -2
    square = update.square().mean(dim, keepdim=True)
    variance.mul_(MUON_BETA2).add_((1 - MUON_BETA2) * square)
    even = update * variance.clamp_min(1e-10).rsqrt()
    update = even * (
        update.norm(dim=(-2, -1), keepdim=True) / even.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-10)
    )
    # cautious weight decay, arXiv:2510.12402: only where it does not work against the update
    update = update + weight_decay * weights * (update * weights >= 0)
    return weights - lr * update


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum, https://kellerjordan.github.io/posts/muon, a stack of matrices at a time."""

    def __init__(self, weights, lr, weight_decay):
        shapes = sorted({weight.shape for weight in weights})
        groups = [{"params": [weight for weight in weights if weight.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr, "momentum": MUON_MOMENTUM, "weight_decay": weight_decay})
        self.update = torch.compile(muon_update, dynamic=False) if COMPILE else muon_update

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            weights = torch.stack(group["params"])
            grads = torch.stack([weight.grad for weight in group["params"]])
            rows, columns = weights.shape[-2:]
            state = self.state[group["params"][0]]
            if not state:
                state["velocity"] = torch.zeros_like(weights)
                state["variance"] = torch.zeros_like(
                    weights[..., :1] if rows >= columns else weights[..., :1, :]
                )
            lr = group["lr"] * max(1.0, rows / columns) ** 0.5
            # On the CPU: a copy to a GPU would be waited for.
            rates = torch.tensor([lr, group["momentum"], group["weight_decay"]])
            weights = self.update(weights, grads, state["velocity"], state["variance"], *rates)
            torch._foreach_copy_(group["params"], list(weights.unbind()))


def make_optimizers(model):
    """Muon for the matrices inside the layers, AdamW, at rates that fall with the width, for all else."""
    scale = (WIDTH / 768) ** -0.5
    adamw = torch.optim.AdamW(
        [
            {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale},
            {"params": [model.embedding.weight, *model.values.parameters()], "lr": EMBEDDING_LR * scale},
            {"params": [model.resid_lambdas], "lr": SCALAR_LR * 0.01},
            {"params": [model.x0_lambdas], "lr": SCALAR_LR, "betas": X0_BETAS},
        ],
        betas=ADAM_BETAS,
        eps=1e-10,
        weight_decay=0.0,
        fused=True,
    )
    muon = Muon(list(model.blocks.parameters()), MATRIX_LR, WEIGHT_DECAY)
    for group in adamw.param_groups + muon.param_groups:
        group["initial_lr"] = group["lr"]
    return adamw, muon


def lr_multiplier(progress):
    """Up, level, down; `progress` is the share of the time budget used."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    if progress <= 1 - WARMDOWN_RATIO:
        return 1.0
    left = (1 - progress) / WARMDOWN_RATIO
    return left + (1 - left) * FINAL_LR_FRAC


# ---------------------------------------------------------------------------
# Training


def train_step(batch, batches, multiplier, momentum, weight_decay):
    """One optimizer step over MICRO_STEPS batches; the mean loss, still on the device, and the next batch."""
    mean = 0.0
    for _ in range(MICRO_STEPS):
        inputs, targets, _ = batch
        loss = compiled(inputs, targets) / MICRO_STEPS
        loss.backward()
        batch = next(batches)  # packed while a GPU is still busy
        mean += loss.detach()
    for group in adamw.param_groups:
        group["lr"] = group["initial_lr"] * multiplier
    for group in muon.param_groups:
        group.update(lr=group["initial_lr"] * multiplier, momentum=momentum, weight_decay=weight_decay)
    for optimizer in (adamw, muon):
        optimizer.step()
        optimizer.zero_grad()
    return mean, batch


def warm_up():
    """Compile, allocate and trace before the clock starts: a step at rate 0 on made-up tokens, forgotten."""
    tokens = torch.arange(BATCH_ROWS * MAX_SEQ_LEN, device=DEVICE).view(BATCH_ROWS, MAX_SEQ_LEN)
    tokens %= tokenizer.vocab_size
    targets = tokens.clone()  # were they the same tensor, the compiler would count on it and start over
    batch = (tokens, targets, 0)
    train_step(batch, itertools.repeat(batch), 0.0, MUON_MOMENTUM, 0.0)
    for optimizer in (adamw, muon):
        optimizer.state.clear()
    trace(model)
    gc.collect()
    gc.freeze()  # what is alive now stays so: no collection need look at it again, and stall a step


def train():
    """
    Step until the next one would end after the budget; the seconds and the steps it took.

    What is trained beyond the budget makes the score worse than it makes it better.
    """
    batches = make_dataloader(tokenizer, BATCH_ROWS, MAX_SEQ_LEN, "train")
    step, used, took, smooth, shown = 0, 0.0, 0.0, 0.0, -math.inf
    start = clock()
    batch = next(batches)  # which opens the data, and starts the clock of a run that is measured
    while used + took <= TIME_BUDGET:
        progress = used / TIME_BUDGET
        multiplier = lr_multiplier(progress)
        ramp = min(step / MUON_MOMENTUM_STEPS, 1)
        momentum = MUON_MOMENTUM_START + ramp * (MUON_MOMENTUM - MUON_MOMENTUM_START)
        epoch = batch[2]
        loss, batch = train_step(batch, batches, multiplier, momentum, WEIGHT_DECAY * (1 - progress))
        loss = loss.item()
        step += 1
        if not loss <= MAX_LOSS:  # NaN compares false
            print(f"\nFAIL: the loss is {loss:g} at step {step}")
            sys.exit(1)
        before, used = used, clock() - start
        if step > 1:  # the first one's time includes opening the data
            took = used - before
        smooth = 0.9 * smooth + 0.1 * loss
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            report(step, smooth / (1 - 0.9**step), multiplier, used - before, epoch, used)
    print()
    return used, step


def report(step, loss, multiplier, dt, epoch, used):
    """The line that is rewritten while training."""
    fields = [
        f"step {step:05d} ({min(100 * used / TIME_BUDGET, 100):.1f}%)",
        f"loss: {loss:.6f}",
        f"lrm: {multiplier:.2f}",
        f"dt: {1000 * dt:.0f}ms",
        f"tok/sec: {TOTAL_BATCH_SIZE / dt:,.0f}",
        f"epoch: {epoch}",
        f"remaining: {max(TIME_BUDGET - used, 0):.0f}s",
    ]
    print("\r" + " | ".join(fields), end="    ", flush=True)


began = time.monotonic()
torch.manual_seed(SEED)
torch.set_float32_matmul_precision("high")
tokenizer = Tokenizer.load()
model = GPT(tokenizer.vocab_size).to(DEVICE)
compiled = torch.compile(model, dynamic=False) if COMPILE else model
adamw, muon = make_optimizers(model)
num_params = sum(p.numel() for p in model.parameters())
print(f"{num_params:,} parameters: {DEPTH} layers of width {WIDTH}; {MICRO_STEPS} x {BATCH_ROWS} rows a step")

warm_up()
seconds, steps = train()
val_bpb = evaluate_bpb(model, tokenizer, min(BATCH_ROWS, 32))

print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {seconds:.1f}")
print(f"total_seconds:    {time.monotonic() - began:.1f}")
print(f"peak_vram_mb:     {peak_memory_mb():.1f}")
for gpu, peak in PEAK_FLOPS.items():
    if DEVICE.type == "cuda" and gpu in device_name():
        flops = model.flops_per_token() * steps * TOTAL_BATCH_SIZE
        print(f"mfu_percent:      {100 * flops / seconds / peak:.2f}")
        break
print(f"total_tokens_M:   {steps * TOTAL_BATCH_SIZE / 1e6:.3f}")
print(f"num_steps:        {steps}")
print(f"num_params_M:     {num_params / 1e6:.1f}")
print(f"depth:            {DEPTH}")
