"""The minimum of a strongly convex function, to nearly the last digit of float64.

L-BFGS comes close and stops where the differences of its line search drown in rounding. Newton's method goes on from
there by the gradient alone, which needs no differences of values; its linear systems are solved by conjugate gradients.
Both are SciPy's. The same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MOST_VALUES = 1000
"""Of L-BFGS."""
MOST_STEPS = 50
"""Of Newton's method."""
MOST_PRODUCTS = 500
"""Of conjugate gradients, for a step of Newton's method."""
MOST_HALVINGS = 20


def minimum(
    gradient: Callable[[np.ndarray], tuple[Any, np.ndarray]],
    hessian: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    features: int,
    convexity: float,
    accuracy: float,
) -> float | None:
    """Return the least value of a function, None if it was not found to the accuracy asked for.

    Args:
        gradient: returns value and gradient (d,) at a point (d,).
        hessian: returns, for a point, what multiplies a vector with the Hessian, or with one of the generalised
            Hessians where a gradient has a kink.
        features: d.
        convexity: λ > 0, by which the function is strongly convex.
        accuracy: largest error of the result, relative to it: f − f* <= ‖∇f‖²/2λ is at most so much of f.
    """
    # Here, not above: it takes a third of a second, and few runs look for a minimum.
    from scipy import optimize
    from scipy.sparse import linalg

    start = np.zeros(features)
    options = {"maxfun": MOST_VALUES, "maxiter": MOST_VALUES, "ftol": 0.0, "gtol": 0.0, "maxcor": 20}
    w = optimize.minimize(gradient, start, jac=True, method="L-BFGS-B", options=options).x
    value, g = gradient(w)
    for _ in range(MOST_STEPS):
        norm = float(np.linalg.norm(g))
        if norm**2 / (2 * convexity) <= accuracy * abs(value):
            return value
        operator = linalg.LinearOperator((features, features), matvec=hessian(w), dtype=np.float64)  # pyright: ignore[reportCallIssue]
        step, _ = linalg.cg(operator, g, maxiter=MOST_PRODUCTS)
        # A whole step, unless it crosses a kink and lands where the gradient is larger.
        for halving in range(MOST_HALVINGS):
            value, ahead = gradient(w - step / 2**halving)
            if np.linalg.norm(ahead) < norm:
                w, g = w - step / 2**halving, ahead
                break
        else:
            return None
    return None
