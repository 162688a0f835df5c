"""Straight lines and percentiles."""

import math
import statistics


def line(points):
    """Least squares of (x, y): slope, its 95 % half width, mean and standard deviation of y. None below 10 points."""
    count = len(points)
    if count < 10:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    sxx = sum((x - mean_x) ** 2 for x in xs)
    if sxx == 0:
        return None
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sxx
    rest = [y - mean_y - slope * (x - mean_x) for x, y in points]
    # Neighbours are alike (a frame's grid beats with the marker's second): their correlation widens the interval.
    power = sum(r * r for r in rest)
    alike = sum(a * b for a, b in zip(rest, rest[1:])) / power if power else 0.0
    alike = min(max(alike, 0.0), 0.99)
    error = math.sqrt(power / (count - 2) / sxx * (1 + alike) / (1 - alike))
    return {"slope": slope, "half": 1.96 * error, "mean": mean_y, "spread": statistics.pstdev(ys), "count": count,
            "first": min(xs), "last": max(xs)}


def percentile(values, part):
    """The value below which `part` of the values lie."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def table(rows, widest=44):
    """Rows of texts in columns; a text longer than a column pushes the rest of its row."""
    rows = [[str(cell) for cell in row] for row in rows]
    count = max(map(len, rows))
    widths = [min(widest, max((len(row[n]) for row in rows if n < len(row)), default=0)) for n in range(count)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
