"""What the tuner proposes for one trial of a campaign. With numpy, so it is imported late."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pytest_autoresearch.agents.briefing import Briefing, changes
from pytest_autoresearch.agents.tuner.space import WHOLE, Axis, space
from pytest_autoresearch.agents.tuner.surrogate import Array, Risk, Surrogate, expected_improvement
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.records.trial import Value
from pytest_autoresearch.source import constants

MAX_MOVED = 3  # constants that move at once
ADVISED = 3  # proposals that are told to another agent
DRAWS = 500  # candidates for the acquisition function
NEAREST = 200  # trials that the Gaussian process is fitted to
RISKY = 0.03  # the highest acceptable probability of a failure
SIZE_STD = 0.12  # standard deviation of an integer's moves, as a share of its range
OCTAVE_STD = 0.36  # the same for powers of two, whose range has few steps
FAR_SHARE = 0.1  # of the moves of a size go anywhere in its range
COUPLED_SHARE = 0.5  # of the moves of a size take another size a step down
STD_FACTOR = 2.0  # of the process's standard deviations, which are too small: it is fitted near the best
LATEST = 1000  # trials that the model of failures is fitted to
LINEAR = 20  # below this multiple of the noise, scores count linearly, not by their logarithm
FAILED = ("crashed", "out of memory", "timeout")
NOT_ANOTHERS = ("", "tuner")  # the project's own hook, and the tuner


class Search:
    """The next trial of one campaign."""

    def __init__(self, briefing: Briefing) -> None:
        self._briefing, self._device = briefing, briefing.device
        self._incumbent = {known.name: known for known in constants.find(briefing.script, self._device)}
        self._at = {name: constant.value for name, constant in self._incumbent.items()}
        self._start = constants.values(briefing.start, self._device)
        every = space(briefing.start, self._device)
        self._axes = [axis for axis in every if axis.takes(self._at.get(axis.name))]
        self._wholes = [axis for axis in self._axes if axis.scale in WHOLE]
        self._origin = self._points([self._at])
        self._changed: list[set[str]] = []
        self._begun: list[dict[str, Value]] = []  # the changes of other agents' trials
        for entry, names in changes(briefing):
            self._changed.append(names)
            if entry.agent not in NOT_ANOTHERS:
                self._begun.append(self._clipped(entry.constants, names))
        known = [self._at, *(entry.constants for entry in briefing.history)]
        for proposal in briefing.running:
            text = proposal.files.get(briefing.script_name, briefing.script)
            known.append(running := constants.values(text, self._device))
            self._changed.append({name for name, value in running.items() if value != self._at.get(name)})
        self._tried = {frozenset(values.items()) for values in known}

    def proposals(self) -> Iterator[Proposal]:
        """Yield new and allowed proposals, the best first."""
        for move in self._moves() if self._axes else ():
            outcome = frozenset({**self._at, **move}.items())
            if outcome not in self._tried:
                self._tried.add(outcome)
                if proposal := self._proposal(move):
                    yield proposal

    def advice(self) -> Iterator[str]:
        """Yield a line for each constant, and for each of the next proposals."""
        if not self._axes:
            yield "nothing can be tuned"
            return
        surrogate = self._surrogate() if self._briefing.history else None
        for axis in self._axes:
            line = f"{axis.name}: {axis.span}, now {self._at[axis.name]!r}"
            if surrogate is not None:
                line += f", model prefers {self._preferred(surrogate, axis)!r}"
            yield line
        for number, proposal in enumerate(itertools.islice(self.proposals(), ADVISED), 1):
            yield f"the tuner's choice {number}: {proposal.description}"

    def _moves(self) -> Iterator[Mapping[str, Value]]:
        """Yield new values of a few constants, the preferred ones first."""
        history = self._briefing.history
        if history and history[-1].is_kept:
            yield from self._again()
        # An integer that another agent moved together with rates still has to be tried alone.
        names = {axis.name for axis in self._wholes}
        moved = set().union(*(changed for changed in self._changed if changed <= names))
        for axis in self._wholes:
            if axis.name not in moved:
                yield from self._down(axis)
        yield from self._drawn()

    def _again(self) -> Iterator[Mapping[str, Value]]:
        """Yield one more step down, if the last trial was kept for one."""
        kept = [entry.constants for entry in self._briefing.history if entry.is_kept]
        before, now = [self._start, *kept][-2:]
        moved = [axis for axis in self._axes if before.get(axis.name) != now.get(axis.name)]
        if all(
            axis.name in before and axis.step_down(before[axis.name]) == now.get(axis.name) for axis in moved
        ):
            for axis in moved:
                yield from self._down(axis)

    def _down(self, axis: Axis) -> Iterator[Mapping[str, Value]]:
        """Yield a step down, and with one of another integer if it is forbidden alone."""
        if (lower := axis.step_down(self._at[axis.name])) is None:
            return
        yield {axis.name: lower}
        if self._proposal({axis.name: lower}) is None:
            for other in self._wholes:
                also = other.step_down(self._at[other.name])
                if other is not axis and also is not None:
                    yield {axis.name: lower, other.name: also}

    def _drawn(self) -> Iterator[Mapping[str, Value]]:
        """Yield draws around the incumbent, the most promising first."""
        # The same in every process.
        seed = hashlib.blake2b(repr((self._briefing.tag, self._briefing.number)).encode(), digest_size=4)
        rng = np.random.default_rng(int.from_bytes(seed.digest(), "big"))
        draws = [self._draw(rng) for _ in range(DRAWS)]
        points = self._points([{**self._at, **draw} for draw in draws])
        risk = self._risk().of(points)
        promise = 1 - risk
        if self._briefing.history:
            surrogate = self._surrogate()
            means, stds = surrogate.predict(points)
            best = float(surrogate.predict(self._origin)[0][0])
            promise *= expected_improvement(means, STD_FACTOR * stds, best)
        for index in np.lexsort((-promise, risk >= RISKY)):
            yield draws[index]

    def _draw(self, rng: np.random.Generator) -> dict[str, Value]:
        begun = self._taken_up(rng)
        axes = [axis for axis in self._axes if axis.name in begun] or self._axes
        count = min(len(axes), int(rng.integers(1, MAX_MOVED + 1)))
        draw = {}
        for index in rng.choice(len(axes), count, replace=False):
            axis = axes[index]
            draw[axis.name] = begun[axis.name] if begun else self._anew(axis, rng)
        if any(axis.name in draw for axis in self._wholes) and rng.random() < COUPLED_SHARE:
            other = self._wholes[int(rng.integers(len(self._wholes)))]
            lower = other.step_down(draw.get(other.name, self._at[other.name]))
            if lower is not None:
                draw[other.name] = lower
        return draw

    def _taken_up(self, rng: np.random.Generator) -> dict[str, Value]:
        """Return the changes of one of another agent's trials; mostly none."""
        if not self._begun or rng.random() > len(self._begun) / len(self._briefing.history):
            return {}
        begun = self._begun[int(rng.integers(len(self._begun)))]
        return {name: value for name, value in begun.items() if value != self._at[name]}

    def _anew(self, axis: Axis, rng: np.random.Generator) -> Value:
        """Return a new value of *axis*: for a size mostly near the incumbent's, else anywhere."""
        unit = rng.random()
        if axis.scale in WHOLE and rng.random() > FAR_SHARE:
            std = OCTAVE_STD if axis.scale == "octave" else SIZE_STD
            unit = axis.unit(self._at[axis.name]) + std * rng.standard_normal()
        return axis.at(min(max(unit, 0.0), 1.0))

    def _clipped(self, values: Mapping[str, Value], names: set[str]) -> dict[str, Value]:
        """Return the *values* of the axes with these *names*, clipped to their ranges."""
        return {
            axis.name: axis.at(max(axis.unit(values[axis.name]), 0.0))
            for axis in self._axes
            if axis.name in names and axis.takes(values.get(axis.name))
        }

    def _surrogate(self) -> Surrogate:
        """Fit the process to the trials nearest to the incumbent, and to the start; lower is better."""
        history = self._briefing.history
        tried = [(entry.constants, entry.score) for entry in history if entry.is_scored]
        tried.append((self._start, history[0].incumbent_score))
        points = self._points([values for values, _ in tried])
        sign = 1 if self._briefing.direction == "minimize" else -1
        losses = sign * np.array([score for _, score in tried], dtype=float)
        losses -= losses.min()
        distances = ((points - self._origin) ** 2).sum(1)
        near = np.argsort(-distances, kind="stable")[-NEAREST:]  # the nearest last
        points, losses = points[near], losses[near]
        offset = max(LINEAR * self._briefing.noise, losses.max() / 1000, 1e-12)
        choices = np.array([axis.scale == "choice" for axis in self._axes])
        return Surrogate(points, np.log(losses + offset), choices)

    def _risk(self) -> Risk:
        """Fit the model of failures to the latest trials."""
        history = [entry for entry in self._briefing.history if entry.verdict != "refused"][-LATEST:]
        points = self._points([self._start, *(entry.constants for entry in history)])
        failed = np.array([False, *(entry.verdict in FAILED for entry in history)])
        large = np.array([False, *(entry.verdict == "out of memory" for entry in history)])
        sizes = np.array([axis.scale in WHOLE for axis in self._axes])
        return Risk(points, failed, large, sizes, self._origin)

    def _preferred(self, surrogate: Surrogate, axis: Axis) -> Value:
        """Return the best value of *axis* by the model, with the incumbent's values of all others."""
        values = list(dict.fromkeys(axis.at(unit) for unit in np.linspace(0, 1, 25).tolist()))
        means, _ = surrogate.predict(self._points([{**self._at, axis.name: value} for value in values]))
        return values[int(means.argmin())]

    def _points(self, known: Sequence[Mapping[str, Value]]) -> Array:
        """Return the points (n, d) of values in the unit cube of the axes."""
        return np.array([[axis.unit(values.get(axis.name)) for axis in self._axes] for values in known])

    def _proposal(self, move: Mapping[str, Value]) -> Proposal | None:
        """Return the incumbent with *move* written into it, None if an assert forbids it."""
        texts = {
            self._incumbent[axis.name]: axis.text(move[axis.name], self._incumbent[axis.name].text)
            for axis in self._axes
            if axis.name in move and move[axis.name] != self._at[axis.name]
        }
        source = constants.splice(self._briefing.script, texts)
        if constants.broken_assert(source, self._device, self._briefing.fixed) is not None:
            return None
        changed = (f"{old.name} {' '.join(old.text.split())} -> {new}" for old, new in texts.items())
        return Proposal({self._briefing.script_name: source}, ", ".join(changed))
