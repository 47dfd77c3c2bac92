"""Scores of every kind that has ever broken a histogram."""

import numpy as np


def _float32(values):
    limit = np.finfo(np.float32).max
    return np.clip(values, -limit, limit).astype(np.float32)


FAMILIES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "huge range": lambda rng, n: np.exp(rng.normal(scale=40, size=n).clip(-87, 87)),
    "both signs, huge range": lambda rng, n: (
        rng.choice([-1, 1], n) * np.exp(rng.normal(scale=40, size=n).clip(-87, 87))
    ),
    "heavy ties": lambda rng, n: np.round(rng.normal(size=n), 1),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "few values": lambda rng, n: rng.choice(rng.normal(size=4), n),
    "narrow range": lambda rng, n: 1000 + 1e-3 * rng.uniform(-1, 1, n),
    "one page": lambda rng, n: 0.5 + rng.random(n) / 16,
    "negative": lambda rng, n: -rng.gamma(2.0, size=n),
    "denormal": lambda rng, n: 1e-45 * rng.integers(-50, 50, n),
    "signed zeros": lambda rng, n: rng.choice([0.0, -0.0, 1e-45, -1e-45, 1.0], n),
    "entropy": lambda rng, n: np.minimum(rng.gamma(0.2, size=n), 3),
    "mixture": lambda rng, n: np.where(
        rng.random(n) < 0.5, rng.choice([0.0, 1.0, -3.5], n), rng.standard_cauchy(n)
    ),
    "largest floats": lambda rng, n: rng.choice([-1.0, 1.0], n) * 3.4028235e38 * rng.random(n),
}


def draw(family, seed, n, dtype=np.float32):
    """Scores, and labels that lean on their order, with a share of positives of its own."""
    rng = np.random.default_rng(seed)
    score = _float32(FAMILIES[family](rng, n))
    if dtype == np.float16:
        score = score.clip(-6e4, 6e4)
    if dtype == np.float64:
        score = score.astype(np.float64) * (1 - 1e-9 * rng.random(n))
    rank = np.argsort(np.argsort(score)) / n
    share, lean = rng.choice([0.01, 0.1, 0.5, 0.95]), rng.choice([-0.5, 0.0, 1.0, 8.0])
    positive = rng.random(n) < np.clip(share * (1 + lean * (rank - 0.5)), 0, 1)
    return score.astype(dtype), positive
