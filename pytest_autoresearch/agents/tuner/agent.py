"""A model of the script's constants: the default agent, and the one that others have to beat."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import TYPE_CHECKING

from pytest_autoresearch.agents.briefing import changes
from pytest_autoresearch.agents.tuner.space import WHOLE, Axis, space
from pytest_autoresearch.records.proposal import Proposal
from pytest_autoresearch.source import constants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pytest_autoresearch.agents.briefing import Briefing
    from pytest_autoresearch.agents.tuner.surrogate import Risk, Surrogate
    from pytest_autoresearch.records.proposal import Failure
    from pytest_autoresearch.records.trial import Trial, Value

    Array = NDArray[np.float64]

FREE = 3  # constants that move at once, at most
ADVISED = 3  # proposals that another agent is told of
DRAWS = 500  # that the model chooses from
KNOWN = 200  # trials that the model is made of, those nearest to the incumbent
RISKY = 0.03  # the probability of a failure from which on values are left alone
REACH = 0.12  # the standard deviation of a size's moves, of its range
OCTAVES = 0.36  # the same of powers of two, whose range has few steps
FAR = 0.1  # how often a size moves anywhere
COUPLED = 0.5  # how often another size goes down with one that moves: what an assert needs, or memory
DOUBT = 2.0  # how much less sure of itself the model is taken to be: it has seen the best only
REMEMBERED = 1000  # trials that tell what fails, the latest
BLUR = 20  # differences of so many times the noise, and smaller ones, are told on a linear scale
FAILED = ("crashed", "out of memory", "timeout")


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

    **What is proposed.** First every integer is moved once, alone, in the order of the script and one step
    down, an octave or half: under a fixed time budget a cheaper step buys more steps, which was the first
    large gain of upstream's own session on an H100. A step down that was kept is taken once more (the
    pattern move of Hooke and Jeeves, 1961). A step that a module-level assert forbids is taken together with
    one of another integer.

    After that, up to three constants are free around the incumbent, sizes (the integers) mostly near their
    values and the others anywhere in their ranges. Of five hundred such draws the one is proposed that
    promises the largest improvement (Mockus, 1975; Jones et al., 1998), by a Gaussian process that has
    learned from the trials nearest to the incumbent, whoever proposed them. It sees logarithms of how far a
    score is from the best, so what is good counts more than how bad the bad is; trials that failed it does
    not see. With a size that moves, another one often goes a step down, for that is what asserts and memory
    ask for.

    Where another agent proposes too, its share of the trials is also the share of the draws that take up to
    three of the changes that one of its trials made together, kept or not: a good idea may come in bad
    company, and what needs several changes at once is hardly ever drawn.

    **What fails.** How probable it is that values crash, run out of memory or out of time is told by a
    logistic regression, which begins with the belief that more of a size is more likely to fail. What has
    no less of any size than a trial that ran out of memory counts as certain to fail. Draws above three in
    a hundred are left alone while there are others. Nothing is proposed that a module-level assert forbids,
    that has been tried or that is being measured; when no draw is new, the space counts as exhausted.

    Floats have three significant digits, of 1-β for a β.

    **Resuming.** Nothing is kept between calls: the seed comes from the campaign's tag and the number
    of the trial, all else from the history, so a resumed campaign proposes what it would have.
    """

    name = "tuner"
    sandbox = None
    takes_time = False

    def propose(self, briefing: Briefing) -> Proposal | None:
        """Return the incumbent with a few constants changed, None if there is nothing new to try."""
        return _Search(briefing).proposal()

    def fix(self, briefing: Briefing, failure: Failure) -> Proposal | None:  # noqa: ARG002 - an agent's
        """Leave it: another value is another trial."""
        return None

    def close(self) -> None:
        """There is nothing to close."""

    def advice(self, briefing: Briefing) -> str:
        """Return what the tuner knows of each constant, and what it would propose, for another agent."""
        return "\n".join(_Search(briefing).advice())


@dataclasses.dataclass(frozen=True, slots=True)
class _Model:
    """What was learned from the trials; values are lower for better scores."""

    surrogate: Surrogate
    best: float
    """The value of the incumbent."""


class _Search:
    """The next trial of one campaign."""

    def __init__(self, briefing: Briefing) -> None:
        self._briefing, self._device = briefing, briefing.device
        self._incumbent = {known.name: known for known in constants.find(briefing.script, self._device)}
        self._at = {name: constant.value for name, constant in self._incumbent.items()}
        self._start = constants.values(briefing.start, self._device)
        every = space(briefing.start, self._device)
        self._axes = [axis for axis in every if axis.takes(self._at.get(axis.name))]
        self._wholes = [axis for axis in self._axes if axis.scale in WHOLE]
        changed = list(changes(briefing))
        self._changed = [names for _, names in changed]
        self._begun = [self._moved(entry.constants, names) for entry, names in changed if _is_anothers(entry)]
        self._known = [entry.constants for entry in briefing.history]
        if briefing.running is not None:
            running = constants.values(briefing.running.source, self._device)
            self._known.append(running)
            self._changed.append({name for name, value in running.items() if value != self._at.get(name)})
        self._tried = {frozenset(values.items()) for values in (self._at, *self._known)}

    def proposal(self) -> Proposal | None:
        """Return the best proposal, None if there is none."""
        return next(self.proposals(), None)

    def proposals(self) -> Iterator[Proposal]:
        """Yield what is new and allowed, the best first."""
        for move in self._moves() if self._axes else ():
            outcome = frozenset({**self._at, **move}.items())
            if outcome not in self._tried:
                self._tried.add(outcome)
                if proposal := self._proposal(move):
                    yield proposal

    def advice(self) -> Iterator[str]:
        """Yield a line for each constant, and for each of the proposals that come next."""
        if not self._axes:
            yield "nothing can be tuned"
            return
        model = self._model() if self._briefing.history else None
        for axis in self._axes:
            line = f"{axis.name}: {axis.span}, now {self._at[axis.name]!r}"
            if model is not None:
                line += f", model prefers {self._preferred(model, axis)!r}"
            yield line
        for number, proposal in enumerate(itertools.islice(self.proposals(), ADVISED), 1):
            yield f"the tuner's choice {number}: {proposal.description}"

    def _moves(self) -> Iterator[Mapping[str, Value]]:
        """Yield new values of a few constants, those to prefer first."""
        history = self._briefing.history
        if history and history[-1].verdict == "kept":
            yield from self._again()
        # What another agent moves beside rates does not show what an integer is worth.
        names = {axis.name for axis in self._wholes}
        moved = set().union(*(changed for changed in self._changed if changed <= names))
        for axis in self._wholes:
            if axis.name not in moved:
                yield from self._down(axis)
        yield from self._drawn()

    def _again(self) -> Iterator[Mapping[str, Value]]:
        """Yield one more step down, if that is what the last trial was kept for."""
        kept = [
            self._start,
            *(entry.constants for entry in self._briefing.history if entry.verdict == "kept"),
        ]
        before, now = kept[-2:]
        moved = [axis for axis in self._axes if before.get(axis.name) != now.get(axis.name)]
        if all(
            axis.name in before and axis.step_down(before[axis.name]) == now.get(axis.name) for axis in moved
        ):
            for axis in moved:
                yield from self._down(axis)

    def _down(self, axis: Axis) -> Iterator[Mapping[str, Value]]:
        """Yield a step down, with one of another integer where it is forbidden alone."""
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
        import numpy as np

        from pytest_autoresearch.agents.tuner.surrogate import expected_improvement

        rng = np.random.default_rng(self._seed())
        draws = [self._draw(rng) for _ in range(DRAWS)]
        points = self._points([{**self._at, **draw} for draw in draws])
        risk = self._risk().of(points)
        promise = 1 - risk
        if self._briefing.history:
            model = self._model()
            means, spreads = model.surrogate.predict(points)
            promise *= expected_improvement(means, DOUBT * spreads, model.best)
        for index in np.lexsort((-promise, risk >= RISKY)):
            yield draws[index]

    def _draw(self, rng: np.random.Generator) -> dict[str, Value]:
        begun = self._taken_up(rng)
        axes = [axis for axis in self._axes if axis.name in begun] or self._axes
        count = min(len(axes), int(rng.integers(1, FREE + 1)))
        draw = {}
        for index in rng.choice(len(axes), count, replace=False):
            axis = axes[index]
            draw[axis.name] = begun[axis.name] if begun else self._anew(axis, rng)
        if any(axis.name in draw for axis in self._wholes) and rng.random() < COUPLED:
            other = self._wholes[int(rng.integers(len(self._wholes)))]
            lower = other.step_down(draw.get(other.name, self._at[other.name]))
            if lower is not None:
                draw[other.name] = lower
        return draw

    def _taken_up(self, rng: np.random.Generator) -> dict[str, Value]:
        """Return what one of another agent's trials would still change; mostly nothing."""
        if not self._begun or rng.random() > len(self._begun) / len(self._briefing.history):
            return {}
        begun = self._begun[int(rng.integers(len(self._begun)))]
        return {name: value for name, value in begun.items() if value != self._at[name]}

    def _anew(self, axis: Axis, rng: np.random.Generator) -> Value:
        """Return a value of *axis*: a size's mostly near that of the incumbent, another's anywhere."""
        unit = rng.random()
        if axis.scale in WHOLE and rng.random() > FAR:
            reach = OCTAVES if axis.scale == "octave" else REACH
            unit = axis.unit(self._at[axis.name]) + reach * rng.standard_normal()
        return axis.at(min(max(unit, 0.0), 1.0))

    def _moved(self, values: Mapping[str, Value], names: set[str]) -> dict[str, Value]:
        """Return the *values* of the axes with these *names*, within their ranges."""
        return {
            axis.name: axis.at(max(axis.unit(values[axis.name]), 0.0))
            for axis in self._axes
            if axis.name in names and axis.takes(values.get(axis.name))
        }

    def _model(self) -> _Model:
        """Learn from the trials nearest to the incumbent, and from the start."""
        import numpy as np

        from pytest_autoresearch.agents.tuner.surrogate import Surrogate

        sign = 1 if self._briefing.direction == "minimize" else -1
        tried = [(entry.constants, entry.score) for entry in self._briefing.history if _is_scored(entry)]
        tried.append((self._start, self._briefing.history[0].incumbent_score))
        points = self._points([values for values, _ in tried])
        losses = sign * np.array([score for _, score in tried], dtype=float)
        losses -= losses.min()
        origin = self._point(self._at)
        near = np.argsort(-((points - origin) ** 2).sum(1), kind="stable")[-KNOWN:]  # the nearest last
        points, losses = points[near], losses[near]
        blur = max(BLUR * self._briefing.noise, losses.max() / 1000, 1e-12)
        choices = np.array([axis.scale == "choice" for axis in self._axes])
        surrogate = Surrogate(points, np.log(losses + blur), choices)
        return _Model(surrogate, float(surrogate.predict(origin[None])[0][0]))

    def _risk(self) -> Risk:
        """Learn what fails from the latest trials."""
        import numpy as np

        from pytest_autoresearch.agents.tuner.surrogate import Risk

        history = [entry for entry in self._briefing.history if entry.verdict != "refused"][-REMEMBERED:]
        points = self._points([self._start, *(entry.constants for entry in history)])
        failed = np.array([False, *(entry.verdict in FAILED for entry in history)])
        sizes = np.array([axis.scale in WHOLE for axis in self._axes])
        large = np.array([False, *(entry.verdict == "out of memory" for entry in history)])
        return Risk(points, failed, large, sizes, self._point(self._at))

    def _preferred(self, model: _Model, axis: Axis) -> Value:
        """Return the value of *axis* that the model likes best, all others being the incumbent's."""
        import numpy as np

        values = list(dict.fromkeys(axis.at(unit) for unit in np.linspace(0, 1, 25).tolist()))
        means, _ = model.surrogate.predict(self._points([{**self._at, axis.name: value} for value in values]))
        return values[int(means.argmin())]

    def _points(self, known: Sequence[Mapping[str, Value]]) -> Array:
        """Return where values lie in the unit cube of the axes."""
        import numpy as np

        return np.array([[axis.unit(values.get(axis.name)) for axis in self._axes] for values in known])

    def _point(self, values: Mapping[str, Value]) -> Array:
        point: Array = self._points([values])[0]
        return point

    def _seed(self) -> int:
        """Return a seed of 32 bits, the same in every process."""
        text = repr((self._briefing.tag, self._briefing.number))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")

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
        changes = (f"{old.name} {' '.join(old.text.split())} -> {new}" for old, new in texts.items())
        return Proposal(source, ", ".join(changes))


def _is_scored(entry: Trial) -> bool:
    return entry.verdict in {"kept", "discarded"} and entry.score is not None


def _is_anothers(entry: Trial) -> bool:
    return entry.agent not in {"", Tuner.name}
