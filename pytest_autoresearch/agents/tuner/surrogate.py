"""Two models of the trials: a Gaussian process of the score, and a logistic regression of failures.

Points (n, d) lie in the unit cube of the d axes, and distances (d, m, n) are squared, axis by axis. Theta
(d + 2,) holds the log length scales, the log share of the noise and the log amplitude.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

STEPS = 25  # of Rprop
FITTED = 128  # points that theta is fitted to, the last ones
JITTER = 1e-6  # keeps a covariance positive definite
# Normal priors on theta, mean and standard deviation, for an axis of length 1.
LENGTH_PRIOR, NOISE_PRIOR, AMPLITUDE_PRIOR = (-0.5, 1.0), (math.log(0.05), 1.5), (0.0, 1.0)
# Normal priors on the weights of the regression: large sizes are expected to fail, by lack of memory.
SIZE_PRIOR, OTHER_PRIOR, BIAS_PRIOR = (8.0, 4.0), (0.0, 4.0), (-4.0, 2.0)


class Surrogate:
    """A Gaussian process with a Matern 5/2 kernel and one length scale for each axis.

    Theta is the maximum of log marginal likelihood and log prior (MAP) that Rprop (Riedmiller and Braun,
    1993) finds in :data:`STEPS` steps.
    """

    def __init__(self, points: Array, targets: Array, choices: Flags) -> None:
        """Fit to *points* (n, d) with *targets* (n,); on the axes of *choices* (d,) only equality counts."""
        self._points, self._choices = points, choices
        self._mean, self._scale = targets.mean(), targets.std() + 1e-12
        targets = (targets - self._mean) / self._scale
        distances = self._distances(points)
        theta = _fit(distances[:, -FITTED:, -FITTED:], targets[-FITTED:])
        self._inverse = np.exp(-2 * theta[:-2])
        self._amplitude = math.exp(theta[-1])
        covariance = self._kernel(distances)
        covariance[np.diag_indices(len(points))] += self._amplitude * math.exp(theta[-2]) + JITTER
        self._precision = np.linalg.inv(covariance)
        self._weights = self._precision @ targets

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return means (m,) and standard deviations (m,) of the posterior at *points* (m, d)."""
        kernel = self._kernel(self._distances(points))
        explained = np.einsum("ij,jk,ik->i", kernel, self._precision, kernel, optimize=True)
        std = np.sqrt(np.maximum(self._amplitude - explained, 1e-9))
        return self._mean + self._scale * (kernel @ self._weights), self._scale * std

    def _distances(self, points: Array) -> Array:
        difference = points.T[:, :, None] - self._points.T[:, None, :]
        return np.where(self._choices[:, None, None], difference != 0, difference**2)

    def _kernel(self, distances: Array) -> Array:
        scaled = np.sqrt(5 * np.tensordot(self._inverse, distances, 1) + 1e-12)
        matern: Array = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
        return self._amplitude * matern


def _fit(distances: Array, targets: Array) -> Array:
    """Return the theta of the highest posterior density."""
    prior = [LENGTH_PRIOR] * len(distances) + [NOISE_PRIOR, AMPLITUDE_PRIOR]
    means, stds = np.array(prior).T
    theta, step, before = means.copy(), np.full(len(means), 0.3), np.zeros(len(means))
    best: Array = theta
    lowest = math.inf
    for _ in range(STEPS):
        loss, slope = _negative_log_marginal_likelihood(theta, distances, targets)
        loss += 0.5 * (((theta - means) / stds) ** 2).sum()
        slope += (theta - means) / stds**2
        if loss < lowest:
            best, lowest = theta, loss
        turned = np.sign(slope) * np.sign(before)
        step = np.clip(step * np.choose(turned.astype(int) + 1, [0.5, 1.0, 1.3]), 1e-3, 1.0)
        theta, before = theta - step * np.sign(slope), slope
    return best


def _negative_log_marginal_likelihood(theta: Array, distances: Array, targets: Array) -> tuple[float, Array]:
    """Return it, up to a constant, and its gradient (d + 2,).

    Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equations 5.8 and 5.9.
    """
    diagonal = np.diag_indices(len(targets))
    inverse, noise, amplitude = np.exp(-2 * theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
    scaled = np.sqrt(5 * np.tensordot(inverse, distances, 1) + 1e-12)
    decay = amplitude * np.exp(-scaled)
    covariance = (1 + scaled + scaled**2 / 3) * decay
    covariance[diagonal] += amplitude * noise + JITTER
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    precision = factor.T @ factor
    weights = precision @ targets
    loss = 0.5 * targets @ weights - np.log(np.diag(factor)).sum()
    outer = np.outer(weights, weights) - precision
    gradient = np.empty_like(theta)
    gradient[:-2] = -inverse * np.tensordot(distances, outer * (5 / 6) * (1 + scaled) * decay, 2)
    gradient[-2] = -0.5 * np.trace(outer) * amplitude * noise
    gradient[-1] = -0.5 * (outer * covariance).sum()
    return float(loss), gradient


class Risk:
    """The probability that a point fails: a logistic regression with normal priors.

    A point that is no smaller in any size than one that ran out of memory is certain to fail.
    """

    def __init__(self, points: Array, failed: Flags, large: Flags, sizes: Flags, origin: Array) -> None:
        """Fit to *points* (n, d), of which some *failed* (n,), some as too *large* for the memory (n,).

        *sizes* (d,) are the axes of sizes, *origin* (1, d) is a point that works.
        """
        self._origin, self._sizes = origin, sizes
        self._large = points[large][:, sizes]
        prior = [*(SIZE_PRIOR if size else OTHER_PRIOR for size in sizes), BIAS_PRIOR]
        means, stds = np.array(prior).T
        inputs, self._weights = self._inputs(points), means
        for _ in range(8):  # Newton's method
            probability = self._probability(inputs)
            gradient = inputs.T @ (probability - failed) + (self._weights - means) / stds**2
            hessian = (inputs.T * (probability * (1 - probability))) @ inputs + np.diag(1 / stds**2)
            self._weights = self._weights - np.linalg.solve(hessian, gradient)

    def of(self, points: Array) -> Array:
        """Return the probabilities (m,) that *points* (m, d) fail."""
        more = points[:, None, self._sizes] >= self._large - 1e-9
        exceeds = np.any(np.all(more, axis=2), axis=1)
        # A smaller size does not make up for a larger one: it may need no memory at all.
        larger = np.where(self._sizes, np.maximum(points, self._origin), points)
        return np.where(exceeds, 1.0, self._probability(self._inputs(larger)))

    def _inputs(self, points: Array) -> Array:
        return np.column_stack([points - self._origin, np.ones(len(points))])

    def _probability(self, inputs: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-np.clip(inputs @ self._weights, -30, 30))))


def expected_improvement(means: Array, stds: Array, best: float) -> Array:
    """Return the expected improvement (m,) of normal values over *best*, lower is better (Mockus, 1975)."""
    z = (best - means) / stds
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    improvement: Array = stds * (z * below + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    return improvement
