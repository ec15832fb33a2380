"""What is learned from trials: a score for values that were not tried, and the risk that they fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

STEPS = 25  # of the search for length scales
FITTED = 128  # trials that it looks at, the last ones
LENGTH = -0.5  # the logarithm of the usual length scale, of an axis of length 1
NUGGET = 1e-6  # keeps a covariance matrix positive


class Surrogate:
    """A Gaussian process (Matérn 5/2, one length scale for each axis) over points of the unit cube.

    Length scales, noise and amplitude have normal priors on their logarithms, and are those of the highest
    posterior density that Rprop (Riedmiller and Braun, 1993) finds in :data:`STEPS` steps.
    """

    def __init__(self, points: Array, values: Array, choices: Flags) -> None:
        """Learn that *points* have these *values*; on axes of *choices* only equality counts."""
        import numpy as np

        self._points, self._choices = points, choices
        self._mean, self._scale = values.mean(), values.std() + 1e-12
        values = (values - self._mean) / self._scale
        squares = self._squares(points)
        theta = _likeliest(squares[:, -FITTED:, -FITTED:], values[-FITTED:])
        self._inverse = np.exp(-2 * theta[:-2])
        self._amplitude = math.exp(theta[-1])
        covariance = self._covariance(squares)
        covariance[np.diag_indices(len(points))] += self._amplitude * math.exp(theta[-2]) + NUGGET
        self._precision = np.linalg.inv(covariance)
        self._weights = self._precision @ values

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return the means and the standard deviations of the values at *points*."""
        import numpy as np

        shared = self._covariance(self._squares(points))
        explained = np.einsum("ij,jk,ik->i", shared, self._precision, shared, optimize=True)
        spread = np.sqrt(np.maximum(self._amplitude - explained, 1e-9))
        return self._mean + self._scale * (shared @ self._weights), self._scale * spread

    def _squares(self, points: Array) -> Array:
        """Return the squared distances to the known points, axis by axis."""
        import numpy as np

        apart = points.T[:, :, None] - self._points.T[:, None, :]
        return np.where(self._choices[:, None, None], apart != 0, apart**2)

    def _covariance(self, squares: Array) -> Array:
        import numpy as np

        distance = np.sqrt(5 * np.tensordot(self._inverse, squares, 1) + 1e-12)
        matern: Array = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return self._amplitude * matern


def _likeliest(squares: Array, values: Array) -> Array:
    """Return the logarithms of the length scales, of the noise's share and of the amplitude."""
    import numpy as np

    usual = np.array([LENGTH] * len(squares) + [math.log(0.05), 0.0])
    widths = np.array([1.0] * len(squares) + [1.5, 1.0])
    theta, step, before = usual.copy(), np.full(len(usual), 0.3), np.zeros(len(usual))
    best, lowest = theta, math.inf
    for _ in range(STEPS):
        loss, slope = _loss(theta, squares, values)
        loss += 0.5 * (((theta - usual) / widths) ** 2).sum()
        slope += (theta - usual) / widths**2
        if loss < lowest:
            best, lowest = theta, loss
        turned = np.sign(slope) * np.sign(before)
        step = np.clip(step * np.choose(turned.astype(int) + 1, [0.5, 1.0, 1.3]), 1e-3, 1.0)
        theta, before = theta - step * np.sign(slope), slope
    return best


def _loss(theta: Array, squares: Array, values: Array) -> tuple[float, Array]:
    """Return the negative logarithm of the marginal likelihood, and its slope.

    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.8 and 5.9.
    """
    import numpy as np

    diagonal = np.diag_indices(len(values))
    inverse, noise, amplitude = np.exp(-2 * theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
    distance = np.sqrt(5 * np.tensordot(inverse, squares, 1) + 1e-12)
    decay = amplitude * np.exp(-distance)
    covariance = (1 + distance + distance**2 / 3) * decay
    covariance[diagonal] += amplitude * noise + NUGGET
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    precision = factor.T @ factor
    weights = precision @ values
    loss = 0.5 * values @ weights - np.log(np.diag(factor)).sum()
    pull = np.outer(weights, weights) - precision
    slope = np.empty_like(theta)
    slope[:-2] = -inverse * np.tensordot(squares, pull * (5 / 6) * (1 + distance) * decay, 2)
    slope[-2] = -0.5 * np.trace(pull) * amplitude * noise
    slope[-1] = -0.5 * (pull * covariance).sum()
    return float(loss), slope


class Risk:
    """How probable it is that a point fails: a logistic regression that begins with what is usual.

    More of a size is expected to fail sooner (memory), and of nothing else is anything expected. What has
    no less of any size than a point that was too large is too large as well.
    """

    def __init__(self, points: Array, failed: Flags, large: Flags, sizes: Flags, origin: Array) -> None:
        """Learn which *points* have failed, and which of them for being too large.

        Args:
            points: what was tried.
            failed: whether it failed.
            large: whether it ran out of memory.
            sizes: which axes are sizes.
            origin: what works.
        """
        import numpy as np

        self._origin, self._sizes = origin, sizes
        self._large = points[large][:, sizes]
        usual = np.append(np.where(sizes, 8.0, 0.0), -4.0)
        precision = 1 / np.append(np.full(len(sizes), 4.0), 2.0) ** 2
        inputs, self._weights = self._inputs(points), usual
        for _ in range(8):  # Newton's method
            chance = self._chance(inputs)
            slope = inputs.T @ (chance - failed) + precision * (self._weights - usual)
            curvature = (inputs.T * (chance * (1 - chance))) @ inputs + np.diag(precision)
            self._weights = self._weights - np.linalg.solve(curvature, slope)

    def of(self, points: Array) -> Array:
        """Return the probabilities that *points* fail."""
        import numpy as np

        more = points[:, None, self._sizes] >= self._large - 1e-9
        exceeds = np.any(np.all(more, axis=2), axis=1)
        # A smaller size is not counted against a larger one: it may need no memory at all.
        larger = np.where(self._sizes, np.maximum(points, self._origin), points)
        return np.where(exceeds, 1.0, self._chance(self._inputs(larger)))

    def _inputs(self, points: Array) -> Array:
        import numpy as np

        return np.column_stack([points - self._origin, np.ones(len(points))])

    def _chance(self, inputs: Array) -> Array:
        import numpy as np

        chance: Array = 1 / (1 + np.exp(-np.clip(inputs @ self._weights, -30, 30)))
        return chance


def expected_improvement(means: Array, spreads: Array, best: float) -> Array:
    """Return by how much values below *best* are expected to be below it (Mockus, 1975)."""
    import numpy as np

    ahead = (best - means) / spreads
    below = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in ahead])
    gain: Array = spreads * (ahead * below + np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi))
    return gain
