"""Training logs as pictures."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def plot_curves(log: Path, picture: Path) -> None:
    """The columns of the log over the steps, one panel each."""
    with log.open() as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return
    names = [name for name in rows[0] if name != "step"]
    steps = [int(row["step"]) for row in rows]
    figure, axes = pyplot.subplots(len(names), 1, figsize=(8, 2 * len(names)), sharex=True)
    for name, axis in zip(names, axes, strict=True):
        axis.plot(steps, [float(row[name] or "nan") for row in rows])
        axis.set_ylabel(name)
        axis.set_yscale("log" if name not in ("minutes", "kl", "learning_rate") else "linear")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
