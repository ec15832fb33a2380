"""Optuna over the constants of the script: the default agent, and the one that others have to beat."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import re
from typing import TYPE_CHECKING, Literal

from pytest_autoresearch.agents import constants
from pytest_autoresearch.agents.briefing import Proposal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from pytest_autoresearch.agents.briefing import Briefing, Failure
    from pytest_autoresearch.agents.constants import Constant
    from pytest_autoresearch.ledger import Entry, Value

Scale = Literal["octave", "integer", "log", "complement", "linear", "choice"]


class Tuner:
    """Proposes other values for the UPPER_CASE constants of the script; needs no network and no key.

    **What is tuned.** The constants that :func:`~pytest_autoresearch.agents.constants.find` sees on
    the device of the campaign, in the script that the campaign began with and still in the
    incumbent. Ranges are fixed by the start *v* and do not move with the incumbent:

    ===========================================  ==========================  ========
    constant                                     range                       scale
    ===========================================  ==========================  ========
    a power of two from 8                        v/4 .. 4v                   octaves
    another positive int, ``DEPTH``, ``LAYERS``  max(1, v//2) .. 2v          linear
    ``BETA``, ``MOMENTUM`` in [0, 1)             1-β: (1-v)/4 .. 4(1-v)      log of 1-β
    ``RATIO``, ``FRAC``, ``DROPOUT``, ``PROB``   0 .. 1                      linear
    another positive float                       v/4 .. 4v                   log
    a bool                                       both                        choice
    ===========================================  ==========================  ========

    Strings, negative numbers and zeros that are no ratio are left alone, for nothing tells their
    range, and so is what is no hyperparameter by its name: seeds, paths, names and versions,
    evaluation, budgets, vocabulary, peak FLOPS, dtypes, compiling, logging. A trailing comment
    overrules all of this: ``# tune: fixed``, ``# tune: 1e-3..1e-1``, ``# tune: "L" | "SL" |
    "SSSL"``, after other words or alone. A comment that cannot be read so is prose.

    **What is proposed.** First every constant is moved once, alone. Integers come first, in the
    order of the script and one step down, an octave or half: under a fixed time budget a cheaper
    step buys more steps, which was the first large gain of upstream's own session on an H100; a step
    down that was kept is taken once more (the pattern move of Hooke and Jeeves, 1961). Then the
    others, at random. After that one or two constants a trial are free around the incumbent
    and come from TPE (Bergstra et al., 2011; Optuna's is multivariate), which learns their good
    values from the whole history, whoever proposed it; what crashed, ran out of time or was refused
    counts as worse than any score. Floats have three significant digits, of 1-β for a β. Nothing is
    proposed that a module-level assert forbids or that has been tried; when some two hundred draws
    give nothing new, the space counts as exhausted.

    **Resuming.** Nothing is kept between calls: the seed comes from the campaign's tag and the number
    of the trial, all else from the history, so a resumed campaign proposes what it would have.
    """

    name = "tuner"
    sandbox = None
    takes_time = False

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the incumbent with one or two constants changed, None if there is nothing new to try."""
        device = briefing.platform.get("device", "cpu")
        incumbent = {constant.name: constant for constant in constants.find(briefing.script, device)}
        at = {name: constant.value for name, constant in incumbent.items()}
        axes = [axis for axis in _space(briefing.start, device) if axis.takes(at.get(axis.name))]
        tried = {frozenset(known.items()) for known in (at, *(entry.constants for entry in briefing.history))}
        for move in _moves(briefing, axes, at):
            outcome = frozenset({**at, **move}.items())
            if outcome in tried:
                continue
            tried.add(outcome)
            proposal = _proposal(briefing, axes, incumbent, move)
            if proposal is not None:
                return proposal
        return None

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:  # noqa: ARG002 - an agent's
        """Leave it: another value is another trial."""
        return None

    def close(self) -> None:
        """There is nothing to close."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Axis:
    """Where one constant may go. A position is a value on its scale: the exponent of an octave, 1-β."""

    name: str
    scale: Scale
    low: float = 0
    """The lowest position."""
    high: float = 0
    """The highest position, inclusive."""
    choices: tuple[Value, ...] = ()

    def takes(self, value: Value | None) -> bool:
        """Tell whether a constant of this *value* is still of the axis's kind, in its range or not."""
        return value is not None and (self.scale == "choice" or not isinstance(value, str | bool))

    def position(self, value: Value | None) -> Value | None:
        """Return where *value* lies, None if that is not on the axis."""
        if self.scale == "choice":
            return value if value in self.choices else None
        if value is None or isinstance(value, str | bool):
            return None
        if self.scale == "octave":
            position: float = int(math.log2(value)) if _is_octave(value) else -1
        elif self.scale == "integer":
            position = int(value) if value == int(value) else -1
        else:
            position = round(1 - value, 12) if self.scale == "complement" else value
        return position if self.low <= position <= self.high else None

    def value(self, position: Value) -> Value:
        """Return the value at *position*, rounded as it will be written."""
        if self.scale == "choice" or isinstance(position, str):
            return position
        if self.scale in _WHOLE:
            return 2 ** int(position) if self.scale == "octave" else int(position)
        # Rounding must not leave the range: the position could not be told to the sampler any more.
        rounded = min(max(float(f"{position:.3g}"), self.low), self.high)
        return round(1 - rounded, 12) if self.scale == "complement" else rounded

    def step_down(self, value: Value) -> Value | None:
        """Return the next lower octave or the half of an integer, None if the range holds none."""
        if isinstance(value, str) or self.scale not in _WHOLE:
            return None
        position = (int(value) - 1).bit_length() - 1 if self.scale == "octave" else round(value / 2)
        lower = self.value(min(max(position, self.low), self.high))
        return lower if not isinstance(lower, str) and lower < value else None

    def text(self, value: Value, written: str) -> str:
        """Return *value* in the style in which the constant was *written*."""
        if isinstance(value, str):
            return repr(value) if written.startswith("'") else json.dumps(value, ensure_ascii=False)
        if self.scale == "octave" and "**" in written:
            return f"2**{int(math.log2(value))}"
        return repr(value)

    def distribution(self) -> BaseDistribution:
        """Return where Optuna may draw a position from."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.scale == "choice":
            return CategoricalDistribution(self.choices)
        if self.scale in _WHOLE:
            return IntDistribution(int(self.low), int(self.high))
        return FloatDistribution(self.low, self.high, log=self.scale != "linear")


_WHOLE = ("octave", "integer")
_FROM_ZERO = ("complement", "linear")
_COUNT = "DEPTH|LAYERS?"
_SHARE = "RATIO|FRAC|FRACTION|DROPOUT|PROB"
_MOMENTUM = "BETAS?|MOMENTUM"
_NO_HYPERPARAMETER = (
    "SEED|PATH|DIR|FILE|URL|NAME|VERSION|EVAL|BUDGET|TIMEOUT|VOCAB|FLOPS|DTYPE|LOG|PRINT|VERBOSE|DEBUG"
    "|EVERY|INTERVAL|WORKERS|THREADS|PORT|COMPILE|MAX_LOSS"
)


def _space(script: str, device: str) -> list[_Axis]:
    """Return the axes of the constants of *script* that are to be tuned, in its order."""
    axes = (_axis(constant, device) for constant in constants.find(script, device))
    return [axis for axis in axes if axis is not None]


def _axis(constant: Constant, device: str) -> _Axis | None:
    name, value = constant.name, constant.value
    told = _told(constant.comment, device)
    if told == "fixed" or (told is None and _named(name, _NO_HYPERPARAMETER)):
        return None
    if isinstance(told, list):
        return _Axis(name, "choice", choices=tuple(dict.fromkeys([value, *told])))
    if isinstance(value, bool):
        return _Axis(name, "choice", choices=(False, True))
    if isinstance(value, str):
        return None
    scale = _scale(name, value)
    if told is not None:
        scale, low, high = _told_range(scale, *told)
    elif 0 < value < 2**53 or scale in _FROM_ZERO:  # larger ones are masks and primes
        low, high = _range(scale, value)
    else:
        return None
    return _Axis(name, scale, low, high) if low < high else None


def _named(name: str, words: str) -> bool:
    return re.search(rf"(^|_)({words})\d*(_|\[|$)", name) is not None


def _scale(name: str, value: float) -> Scale:
    if isinstance(value, int):
        return "octave" if value >= 8 and _is_octave(value) and not _named(name, _COUNT) else "integer"
    if _named(name, _MOMENTUM) and 0 <= value < 1:
        return "complement"
    return "linear" if _named(name, _SHARE) and 0 <= value <= 1 else "log"


def _range(scale: Scale, value: float) -> tuple[float, float]:
    """Return the lowest and the highest position around the start *value*."""
    match scale:
        case "octave":
            return math.log2(value) - 2, math.log2(value) + 2
        case "integer":
            return max(1, value // 2), 2 * value
        case "complement":
            return round((1 - value) / 4, 12), round(min(1, 4 * (1 - value)), 12)
        case "log":
            return value / 4, 4 * value
    return 0, 1


def _told_range(scale: Scale, low: float, high: float) -> tuple[Scale, float, float]:
    """Return the scale and the positions of a range from a comment; linear where *scale* cannot be."""
    if scale == "octave" and _is_octave(low) and _is_octave(high):
        return scale, math.log2(low), math.log2(high)
    if scale in _WHOLE:
        return "integer", math.ceil(low), math.floor(high)
    if scale == "complement" and high < 1:
        return scale, round(1 - high, 12), round(1 - low, 12)
    return ("log" if scale == "log" and low > 0 else "linear"), low, high


def _is_octave(value: float) -> bool:
    return value >= 1 and value == 2 ** int(math.log2(value))


def _told(comment: str, device: str) -> Literal["fixed"] | tuple[float, float] | list[Value] | None:
    """Return what *comment* says after ``tune:``, a range as (lowest, highest); None if nothing."""
    match = re.search(r"\btune:\s*(.+)", comment)
    if match is None or re.match(r"fixed\b", match[1]):
        return match and "fixed"
    try:
        if ends := re.match(r"([^\s|]+?)\.\.([^\s,;|]+)", match[1]):
            low, high = (constants.literal(end, device) for end in ends.groups())
            if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
                return low, high
        elif "|" in match[1]:
            choices = [constants.literal(choice, device) for choice in match[1].split("|")]
            return [choice for choice in choices if not isinstance(choice, tuple)]
    except (constants.Unknown, ZeroDivisionError):
        pass
    return None


def _moves(
    briefing: Briefing, axes: Sequence[_Axis], at: Mapping[str, Value]
) -> Iterator[Mapping[str, Value]]:
    """Yield new values of one or two constants, those to prefer first; *at* is the incumbent's."""
    if not axes:
        return
    start = constants.values(briefing.start, briefing.platform.get("device", "cpu"))
    if briefing.history and briefing.history[-1].verdict == "kept":
        yield from _again(briefing.history, axes, start)
    for axis in sorted(axes, key=lambda axis: axis.scale not in _WHOLE):
        seen = {entry.constants.get(axis.name, start[axis.name]) for entry in briefing.history}
        if seen <= {start[axis.name]}:
            yield from _first_moves(briefing, axis, at[axis.name])
    rng = random.Random(_seed(briefing, "free"))
    for attempt in range(4):
        free = rng.sample(axes, k=min(len(axes), rng.choice((1, 2))))
        yield from _draws(_learned(briefing, free, start, attempt), free, 8)
    by_chance = _unlearned(briefing, "chance")
    for _ in range(200):
        free = rng.sample(axes, k=min(len(axes), rng.choice((1, 2))))
        yield from _draws(by_chance, free, 1)


def _again(
    history: Sequence[Entry], axes: Sequence[_Axis], start: Mapping[str, Value]
) -> Iterator[Mapping[str, Value]]:
    """Yield one more step down, if that is what the last trial was kept for."""
    kept = [start, *(entry.constants for entry in history if entry.verdict == "kept")]
    before, now = kept[-2:]
    moved = [axis for axis in axes if before.get(axis.name) != now.get(axis.name)]
    if len(moved) == 1 and (name := moved[0].name) in before and name in now:
        lower = moved[0].step_down(now[name])
        if lower is not None and moved[0].step_down(before[name]) == now[name]:
            yield {name: lower}


def _first_moves(briefing: Briefing, axis: _Axis, value: Value) -> Iterator[Mapping[str, Value]]:
    lower = axis.step_down(value)
    if lower is not None:
        yield {axis.name: lower}
    else:
        # TPE has only ever seen the start here and would hardly leave it.
        yield from _draws(_unlearned(briefing, axis.name), [axis], 8)


def _draws(study: optuna.Study, free: Sequence[_Axis], count: int) -> Iterator[Mapping[str, Value]]:
    for _ in range(count):
        # TPE takes a trial that was asked for and never told for a bad one, so it does not insist.
        trial = study.ask({axis.name: axis.distribution() for axis in free})
        yield {axis.name: axis.value(trial.params[axis.name]) for axis in free}


def _learned(
    briefing: Briefing, free: Sequence[_Axis], start: Mapping[str, Value], attempt: int
) -> optuna.Study:
    """Return a study that knows the history, as far as it is about the constants that are *free*.

    The others stay the incumbent's; leaving them out is all that ``PartialFixedSampler`` would do.
    """
    import optuna

    study = _study(briefing, optuna.samplers.TPESampler(seed=_seed(briefing, "learned", attempt)))
    distributions = {axis.name: axis.distribution() for axis in free}
    for known, score in _observations(briefing, start):
        positions = {axis.name: axis.position(known.get(axis.name)) for axis in free}
        if None not in positions.values():
            # TPE learns from pruned trials; failed ones it ignores.
            state = optuna.trial.TrialState.PRUNED if score is None else optuna.trial.TrialState.COMPLETE
            study.add_trial(
                optuna.trial.create_trial(
                    state=state, value=score, params=positions, distributions=distributions
                )
            )
    return study


def _unlearned(briefing: Briefing, purpose: str) -> optuna.Study:
    """Return a study that draws by chance."""
    import optuna

    return _study(briefing, optuna.samplers.RandomSampler(seed=_seed(briefing, purpose)))


def _study(briefing: Briefing, sampler: BaseSampler) -> optuna.Study:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every new study
    try:
        return optuna.create_study(sampler=sampler, direction=briefing.direction)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _observations(
    briefing: Briefing, start: Mapping[str, Value]
) -> Iterator[tuple[Mapping[str, Value], float | None]]:
    """Yield the constants and the score of all that was tried; None for what gave none to rely on."""
    if briefing.history:
        yield start, briefing.history[0].baseline
    for entry in briefing.history:
        yield entry.constants, entry.score if entry.verdict in {"kept", "discarded"} else None


def _seed(briefing: Briefing, *purpose: str | int) -> int:
    """Return a seed of 32 bits, the same in every process."""
    text = repr((briefing.tag, briefing.number, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _proposal(
    briefing: Briefing,
    axes: Sequence[_Axis],
    incumbent: Mapping[str, Constant],
    move: Mapping[str, Value],
) -> Proposal | None:
    """Return the incumbent with *move* written into it, None if an assert forbids it."""
    device = briefing.platform.get("device", "cpu")
    texts = {
        incumbent[axis.name]: axis.text(move[axis.name], incumbent[axis.name].text)
        for axis in axes
        if axis.name in move and move[axis.name] != incumbent[axis.name].value
    }
    source = constants.splice(briefing.script, texts)
    if constants.broken_assert(source, device, briefing.fixed) is not None:
        return None
    changes = (f"{old.name} {' '.join(old.text.split())} -> {new}" for old, new in texts.items())
    return Proposal(source, ", ".join(changes))
