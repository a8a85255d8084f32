"""Fits the polynomials of kernel.power2: 2^r = 1 + r P(r) on |r| <= 1/2 and, for AVX-512, on 0 <= r <= 1, by Lawson's
iteration.

The error is weighted in units in the last place of the result, which below r = 0 are half as large. Prints the least r,
the largest error in those units and the coefficients, lowest power first.
"""

DEGREE, POINTS = 5, 1001


def solve(a, b):
    rows = [r + [v] for r, v in zip(a, b)]
    n = len(rows)
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(n):
            if k != i:
                f = rows[k][i] / rows[i][i]
                rows[k] = [x - f * y for x, y in zip(rows[k], rows[i])]
    return [rows[i][n] / rows[i][i] for i in range(n)]


for least, rounds in ((-0.5, 150), (0.0, 400)):
    rs = [i / (POINTS - 1) + least for i in range(POINTS)]
    unit = [2.0**-24 if r < 0 else 2.0**-23 for r in rs]
    bases = [[r ** (k + 1) / u for k in range(DEGREE)] for r, u in zip(rs, unit)]
    wanted = [(2.0**r - 1) / u for r, u in zip(rs, unit)]
    share = [1.0 / POINTS] * POINTS
    best = None
    for _ in range(rounds):
        a = [[sum(s * b[i] * b[k] for s, b in zip(share, bases)) for k in range(DEGREE)] for i in range(DEGREE)]
        b = [sum(s * b[i] * w for s, b, w in zip(share, bases, wanted)) for i in range(DEGREE)]
        x = solve(a, b)
        errors = [abs(sum(c * v for c, v in zip(x, b)) - w) for b, w in zip(bases, wanted)]
        if best is None or max(errors) < best[0]:
            best = (max(errors), x)
        share = [s * e for s, e in zip(share, errors)]
        total = sum(share)
        share = [s / total for s in share]
    print(least, best[0], ["%.12g" % c for c in best[1]])
