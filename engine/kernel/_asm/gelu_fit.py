"""Fits P of kernel.gelu: erfc(y/sqrt 2) = exp(y P(y)) on 0 < y <= 6.5, by Lawson's iteration. Needs mpmath.

The error is weighted as it shows in GELU, y/2 * erfc(y/sqrt 2) * d(y P), and the tail by no less than a thousandth,
so that it stays good relatively too. Prints the largest weighted error and the coefficients, lowest power first.
"""

from mpmath import cos, erfc, lu_solve, log, matrix, mp, mpf, nstr, pi, sqrt

mp.dps = 40
DEGREE, END, FLOOR, POINTS = 8, mpf("6.5"), mpf("1e-3"), 240

ys = [END * (1 - cos(pi * (i + mpf(1) / 2) / POINTS)) / 2 for i in range(POINTS)]
wanted = [log(erfc(y / sqrt(2))) / y for y in ys]
weight = [max(y / 2 * erfc(y / sqrt(2)), FLOOR) * y for y in ys]
powers = [[(y / END) ** k for k in range(2 * DEGREE + 1)] for y in ys]
share = [mpf(1) / POINTS] * POINTS
best = None
for _ in range(60):
    a, b = matrix(DEGREE + 1, DEGREE + 1), matrix(DEGREE + 1, 1)
    for s, w, p, f in zip(share, weight, powers, wanted):
        for r in range(DEGREE + 1):
            b[r] += s * w * w * p[r] * f
            for c in range(DEGREE + 1):
                a[r, c] += s * w * w * p[r + c]
    x = lu_solve(a, b)
    errors = [abs(sum(x[k] * p[k] for k in range(DEGREE + 1)) - f) * w for w, p, f in zip(weight, powers, wanted)]
    if best is None or max(errors) < best[0]:
        best = (max(errors), [x[k] / END**k for k in range(DEGREE + 1)])
    share = [s * e for s, e in zip(share, errors)]
    total = sum(share)
    share = [s / total for s in share]
print(nstr(best[0], 3), [nstr(c, 12) for c in best[1]])
