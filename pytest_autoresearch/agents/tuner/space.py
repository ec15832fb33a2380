"""The search space of the tuner: the constants of a script, and their ranges around the start value *v*.

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

Strings, negative numbers and zeros that are no ratio have no range, and names of seeds, paths, versions,
evaluation, budgets, vocabulary, peak FLOPS, dtypes, compiling and logging mark constants as non-tunable. A
trailing comment overrules all of this: ``# tune: fixed``, ``# tune: 1e-3..1e-1``,
``# tune: "L" | "SL" | "SSSL"``, after other words or alone. Any other comment is prose. Floats have three
significant digits, of 1-β for a β.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, Literal

from pytest_autoresearch.source import arithmetic, constants

if TYPE_CHECKING:
    from pytest_autoresearch.records.trial import Value
    from pytest_autoresearch.source.constants import Constant

Scale = Literal["octave", "integer", "log", "complement", "linear", "choice"]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """The range of one constant, from *low* to *high* inclusive, or its choices.

    Both are positions: values on its scale, as the exponent of an octave, or 1-β.
    """

    name: str
    scale: Scale
    low: float = 0
    high: float = 0
    choices: tuple[Value, ...] = ()

    @property
    def span(self) -> str:
        """The range or the choices, for a reader."""
        if self.scale == "choice":
            return " | ".join(map(repr, self.choices))
        return "..".join(map(str, sorted(float(self.value(end)) for end in (self.low, self.high))))

    def takes(self, value: Value | None) -> bool:
        """Tell whether *value* is of the axis's kind, in its range or not."""
        return value is not None and (self.scale == "choice" or not isinstance(value, str | bool))

    def value(self, position: Value) -> Value:
        """Return the value at *position*, rounded as it will be written."""
        if self.scale == "choice" or isinstance(position, str):
            return position
        if self.scale in WHOLE:
            return 2 ** int(position) if self.scale == "octave" else int(position)
        # Rounding must not leave the range.
        rounded = min(max(float(f"{position:.3g}"), self.low), self.high)
        return round(1 - rounded, 12) if self.scale == "complement" else rounded

    def step_down(self, value: Value) -> Value | None:
        """Return the next lower octave or the half of an integer, None if the range holds none."""
        if isinstance(value, str) or self.scale not in WHOLE:
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

    def unit(self, value: Value | None) -> float:
        """Return *value* as a number from 0 to 1, at the nearest end if it is not in the range."""
        if self.scale == "choice":
            return (self.choices.index(value) + 0.5) / len(self.choices) if value in self.choices else -1.0
        if value is None or isinstance(value, str):
            return 0.5  # the script has no such number
        position: float = 1 - value if self.scale == "complement" else value
        if self.scale == "octave":
            position = math.log2(max(value, 1))
        low, high = self._ends
        place = self._place(min(max(position, self.low), self.high))
        return (place - low) / (high - low)

    def at(self, unit: float) -> Value:
        """Return the value at *unit*, between 0 and 1."""
        if self.scale == "choice":
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        low, high = self._ends
        place = low + unit * (high - low)
        if self.scale in WHOLE:
            return self.value(min(max(round(place), self.low), self.high))
        return self.value(math.exp(place) if self.scale in _RATIOS else place)

    @property
    def _ends(self) -> tuple[float, float]:
        """The places of 0 and 1: whole numbers are in the middle of a step."""
        if self.scale in WHOLE:
            return self.low - 0.5, self.high + 0.5
        return self._place(self.low), self._place(self.high)

    def _place(self, position: float) -> float:
        return math.log(position) if self.scale in _RATIOS else position


WHOLE = ("octave", "integer")
_RATIOS = ("log", "complement")
_FROM_ZERO = ("complement", "linear")
_COUNT = "DEPTH|LAYERS?"
_SHARE = "RATIO|FRAC|FRACTION|DROPOUT|PROB"
_MOMENTUM = "BETAS?|MOMENTUM"
_NO_HYPERPARAMETER = (
    "SEED|PATH|DIR|FILE|URL|NAME|VERSION|EVAL|BUDGET|TIMEOUT|VOCAB|FLOPS|DTYPE|LOG|PRINT|VERBOSE|DEBUG"
    "|EVERY|INTERVAL|WORKERS|THREADS|PORT|COMPILE|MAX_LOSS"
)


def space(script: str, device: str) -> list[Axis]:
    """Return the axes of the tunable constants of *script*, in its order."""
    return list(filter(None, (_axis(constant, device) for constant in constants.find(script, device))))


def _axis(constant: Constant, device: str) -> Axis | None:
    name, value = constant.name, constant.value
    told = _told(constant.comment, device)
    if told == "fixed" or (told is None and _named(name, _NO_HYPERPARAMETER)):
        return None
    if isinstance(told, list):
        return Axis(name, "choice", choices=tuple(dict.fromkeys([value, *told])))
    if isinstance(value, bool):
        return Axis(name, "choice", choices=(False, True))
    if isinstance(value, str):
        return None
    scale = _scale(name, value)
    if told is not None:
        scale, low, high = _told_range(scale, *told)
    elif 0 < value < 2**53 or scale in _FROM_ZERO:  # larger ones are masks and primes
        low, high = _range(scale, value)
    else:
        return None
    return Axis(name, scale, low, high) if low < high else None


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
    if scale in WHOLE:
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
    with contextlib.suppress(arithmetic.NotConstant, ZeroDivisionError):
        if ends := re.match(r"([^\s|]+?)\.\.([^\s,;|]+)", match[1]):
            low, high = (arithmetic.literal(end, device) for end in ends.groups())
            if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
                return low, high
        elif "|" in match[1]:
            choices = [arithmetic.literal(choice, device) for choice in match[1].split("|")]
            return [choice for choice in choices if not isinstance(choice, tuple)]
    return None
