"""The table and the pictures of the Lennard-Jones ladder, from the figures that its runs have left."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

Figures = dict[str, Any]
COLOURS = ("tab:purple", "tab:blue", "tab:orange", "tab:green", "black", "tab:red")  # exact comes before the lecture's


def write_report(work: Path, results: Path) -> None:
    """`lj_ladder.md` and `lj_ladder_*.png`; what has not been run is "-".

    What the page has of a model and rung whose figures are not in `work` stays, in rows that another column in `work`
    has; pictures are of what is there.
    """
    columns = {
        path.stem: json.loads(path.read_text())
        for path in sorted(work.glob("*.json"), key=lambda p: _shipped_first(p.stem))
    }
    if not columns:
        raise SystemExit(f"no figures in {work}: run rungs first")
    page = results / "lj_ladder.md"
    earlier = _earlier(page.read_text() if page.exists() else "")
    pictures = [draw(columns, results) for draw in (_accuracy, _thermodynamics, _dynamics)]
    names = sorted({*columns, *earlier}, key=_shipped_first)
    text = ["# The Lennard-Jones ladder", ""]
    for name in names:
        if name not in columns:
            text += [earlier[name].about, ""]
            continue
        about = f"{name}: " + ", ".join(part for part in columns[name]["made"].values() if part) + ". "
        runs = {", ".join(c["made"].values()) for rung, c in columns[name].items() if rung != "made"}
        if name in earlier and earlier[name].about.startswith(about):
            runs |= {*earlier[name].about.removeprefix(about).split("; ")}
        else:  # another model
            earlier.pop(name, None)
        text += [about + "; ".join(sorted(runs)), ""]
    text += [(Path(__file__).parent / "lj_ladder_notes.md").read_text()]
    for title, rows in _sections(columns):
        text += [f"## {title}", "", "| | bar | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
        seen: list[str] = []
        for rung, row, bar, value in rows:
            place = (title, row, seen.count(row))
            seen.append(row)
            cells = [
                _cell(columns[n][rung], value) if rung in columns.get(n, {}) else _cell_of(earlier.get(n), place)
                for n in names
            ]
            text += [f"| {row} | {bar} | {' | '.join(cells)} |"]
        text += [""]
    if len(names) > len(columns):
        text += [f"The pictures show {', '.join(columns)}.", ""]
    text += [f"![{path.stem}]({path.name})\n" for path in pictures]
    page.write_text("\n".join(text))


def _shipped_first(name: str) -> tuple[bool, str]:
    return name != "lj", name


Place = tuple[str, str, int]  # of a cell: heading, row, and how many rows of that name there are before


class Column(NamedTuple):
    """Of a page: the line that says how it was made, and its cells."""

    about: str
    cells: dict[Place, str]


def _cell_of(column: Column | None, place: Place) -> str:
    return column.cells.get(place, "-") if column else "-"


def _earlier(page: str) -> dict[str, Column]:
    """The columns of a page, by name."""
    found: dict[str, Column] = {}
    title, names, seen = "", [], []
    for line in page.splitlines():
        if line.startswith("## "):
            title, names, seen = line[3:], [], []
        elif line.startswith("| ") and not names:
            _, _, *names = (cell.strip() for cell in line[1:-1].split("|"))
            found = {name: found.get(name, Column("", {})) for name in [*found, *names]}
        elif line.startswith("| "):
            row, _, *cells = (cell.strip() for cell in line[1:-1].split("|"))
            for name, cell in zip(names, cells, strict=True):
                found[name].cells[title, row, seen.count(row)] = cell
            seen.append(row)
    lines = page.splitlines()
    return {
        name: column._replace(about=next((line for line in lines if line.startswith(f"{name}: ")), f"{name}:"))
        for name, column in found.items()
    }


Row = tuple[str, str, str, Callable[[Figures], str]]  # rung, what, bar, text of the rung's figures


def _cell(figures: Figures, value: Callable[[Figures], str]) -> str:
    """ "-" where this column has no such system."""
    if "failed" in figures:
        return "**failed**"
    try:
        return value(figures)
    except KeyError:
        return "-"


def _within(value: float, bar: float, form: str, at_least: bool = False) -> str:
    """In bold where it misses, as NaN does."""
    text = format(value, form)
    return text if (value >= bar if at_least else value <= bar) else f"**{text}**"


def _sections(columns: dict[str, Figures]) -> list[tuple[str, list[Row]]]:
    rungs = list(dict.fromkeys(rung for c in columns.values() for rung in c if rung != "made"))

    def systems(rung: str) -> list[str]:
        own = ("seconds", "made", "failed")
        return list(dict.fromkeys(k for c in columns.values() for k in c.get(rung, {}) if k not in own))

    lecture: list[Row] = [
        ("lecture", "MAE, epsilon", "0.10", lambda f: _within(f["mae"], 0.10, ".4f")),
        ("lecture", "R2", "0.999", lambda f: _within(f["r2"], 0.999, ".6f", at_least=True)),
        ("lecture", "median of the errors", "", lambda f: f"{f['median']:.4f}"),
    ]
    forces: list[Row] = [
        ("forces", f"{s}: forces", "0.3 %", lambda f, s=s: _within(100 * f[s][0], 0.3, ".3f") + " %")
        for s in systems("forces")
    ] + [
        ("forces", f"{s}: energy per atom", "0.001", lambda f, s=s: _within(f[s][1], 0.001, ".5f"))
        for s in systems("forces")
    ]
    minima: list[Row] = [
        (
            "relaxed",
            "minima within 1e-3 epsilon, of N = 2 to 38, 55, 75, 98, 147",
            "41",
            lambda f: _count(f["excess"]),
        ),
        ("relaxed", "largest excess, epsilon", "1e-3", lambda f: _within(_largest(f["excess"]), 1e-3, ".1e")),
        *(
            ("relaxed", f"N = {n}", "1e-3", lambda f, n=n: _within(f["excess"][n], 1e-3, ".1e"))
            for n in ("13", "38", "55", "75", "98", "147")
        ),
        (
            "relaxed",
            "icosahedron above octahedron, N = 38",
            "above 0",
            lambda f: _within(f["gap"], 1e-9, ".4f", at_least=True) + f" (true: {f['true gap']:.4f})",
        ),
        (
            "shaken",
            "came back from 40 starts displaced by 0.1 sigma; fell",
            "",
            lambda f: f"{f['returned']}; {f['fell']}",
        ),
        ("hopped", "found by basin hopping, of N = 3 to 20", "18", lambda f: _count(f["excess"])),
        ("hopped", "largest excess, epsilon", "1e-3", lambda f: _within(_largest(f["excess"]), 1e-3, ".1e")),
    ]
    states: list[Row] = []
    for s in systems("states"):
        states.append(("states", f"rho, T = {s}: energy", "0.5 %", lambda f, s=s: _energy(f[s])))
        states.append(("states", f"rho, T = {s}: pressure", "0.05", lambda f, s=s: _pressure(f[s])))
    dynamics: list[Row] = [
        (
            "drift",
            "slope of the energy, epsilon per atom and 1,000 steps",
            "1e-6",
            lambda f: _within(abs(f["slope"]), 1e-6, ".1e"),
        ),
        ("drift", "its standard deviation, epsilon per atom", "", lambda f: f"{f['deviation']:.1e}"),
        ("drift", "mean temperature", "", lambda f: f"{f['temperature']:.3f}"),
        *(
            ("caloric", f"largest heat capacity of {n} atoms, at T", "", lambda f, n=n: _peak(f[n]))
            for n in ("13", "55")
        ),
    ]
    speed: list[Row] = [
        (
            "speed",
            f"{s}: ms, ms of ASE's LennardJones, ratio",
            "",
            lambda f, s=s: "{:.2f}, {:.2f}, {:.1f}".format(*f[s]),
        )
        for s in systems("speed")
    ]
    seconds: list[Row] = [(rung, "seconds of " + rung, "", lambda f: f"{f['seconds']:.0f}") for rung in rungs]
    return [
        ("1. The lecture's test clusters of four atoms", lecture),
        ("2. Unseen dynamics: sum |dF| / sum |F|, mean |dE| per atom", forces),
        ("3. Minima of the Cambridge Cluster Database", minima),
        ("4. Liquid, 500 atoms: against NIST's Monte Carlo", states),
        ("5. Dynamics of 55 atoms at T = 0.2, 100,000 steps of 0.002; heat capacities", dynamics),
        ("6. Speed of energy and forces", [*speed, *seconds]),
    ]


def _count(excess: dict[str, float]) -> str:
    good = [n for n, e in excess.items() if abs(e) < 1e-3]
    missed = [n for n in excess if n not in good]
    return f"{len(good)}" if not missed else f"**{len(good)}** (not {', '.join(missed)})"


def _largest(excess: dict[str, float]) -> float:
    return float(np.max(list(excess.values())))  # NaN where one is


def _peak(curve: list[list[float]]) -> str:
    temperature, _, _, heat, error = max(curve, key=lambda row: row[3])
    return f"{heat:.1f} +- {error:.1f} at {temperature}" + (" (the last)" if temperature == curve[-1][0] else "")


def _energy(figures: list[float] | None) -> str:
    if figures is None:
        return "**failed**"
    mean, error, published = figures[0], figures[2], figures[4]
    return f"{mean:.4f} +- {error:.4f} ({_within(100 * abs(mean / published - 1), 0.5, '.2f')} %)"


def _pressure(figures: list[float] | None) -> str:
    """Undecided where two standard errors reach over the bar."""
    if figures is None:
        return "**failed**"
    mean, error, off = figures[1], figures[3], abs(figures[1] - figures[5])
    doubt = ", undecided" if off - 2 * error <= 0.05 < off + 2 * error else ""
    return f"{mean:.3f} +- {error:.3f} ({_within(off, 0.05, '.3f')}{doubt})"


def _accuracy(columns: dict[str, Figures], results: Path) -> Path:
    """Rungs 1 and 3: parity of the lecture's clusters, true energies above the minima."""
    figure, (parity, error, excess) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for colour, (name, c) in zip(COLOURS, columns.items(), strict=False):
        if "mae" in c.get("lecture", {}):
            truth, guess = np.array(c["lecture"]["truth"]), np.array(c["lecture"]["guess"])
            parity.scatter(truth, guess, s=8, alpha=0.5, color=colour, label=name)
            error.scatter(truth, np.abs(guess - truth), s=8, alpha=0.5, color=colour, label=name)
        if "excess" in c.get("relaxed", {}):
            n, e = zip(*((int(k), _drawn(v)) for k, v in c["relaxed"]["excess"].items()), strict=True)
            excess.semilogy(n, e, "o", ms=4, color=colour, label=name)
    parity.axline((0, 0), slope=1, color="grey", lw=0.8)
    parity.set(title="The lecture's test clusters", xlabel="true energy (epsilon)", ylabel="predicted energy (epsilon)")
    error.set(title="Their errors", xlabel="true energy (epsilon)", ylabel="error (epsilon)", yscale="log")
    excess.axhline(1e-3, color="grey", lw=0.8)
    excess.set(title="Relaxed from perturbed minima", xlabel="atoms", ylabel="true energy above the minimum (epsilon)")
    return _save(figure, (parity, error, excess), results / "lj_ladder_accuracy.png")


def _drawn(excess: float) -> float:
    """On a logarithmic axis; what did not converge at its upper end."""
    return float(np.clip(excess, 1e-7, 1e2)) if math.isfinite(excess) else 1e2


def _thermodynamics(columns: dict[str, Figures], results: Path) -> Path:
    """Rung 4: how far energy and pressure are from the published ones, the bars, and standard errors."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for k, (axis, what, bar) in enumerate(
        zip(axes, ("energy - NIST's (%)", "pressure - NIST's (epsilon/sigma^3)"), (0.5, 0.05), strict=True)
    ):
        for i, (colour, (name, c)) in enumerate(zip(COLOURS, columns.items(), strict=False)):
            states = {
                tuple(map(float, s.split(", "))): v for s, v in c.get("states", {}).items() if isinstance(v, list)
            }
            for temperature, marker in ((0.85, "o"), (0.9, "s")):
                rows = sorted((rho, v) for (rho, t), v in states.items() if t == temperature)
                if rows:
                    rho, values = np.array([r for r, _ in rows]), np.array([v for _, v in rows])
                    unit = np.abs(values[:, 4]) / 100 if k == 0 else 1.0
                    beside = rho + 0.0006 * (i - 1.5) + 0.0002 * (temperature > 0.85)  # points of a state side by side
                    measured, published, error = values[:, k], values[:, 4 + k], values[:, 2 + k]
                    label = f"{name}, T = {temperature}"
                    drawn = {"fmt": marker, "ms": 5, "mfc": "none", "color": colour, "label": label}
                    axis.errorbar(beside, (measured - published) / unit, error / unit, **drawn)
        axis.axhline(0, color="grey", lw=0.8)
        for edge in (-bar, bar):
            axis.axhline(edge, color="grey", lw=0.8, ls="--")
        axis.set(xlabel="density (1/sigma^3)", ylabel=what)
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, -1.5 * bar), max(high, 2.8 * bar))  # with room for the legend
    axes[0].set_title("Liquid; dashed: the bars")
    return _save(figure, axes, results / "lj_ladder_liquid.png")


def _dynamics(columns: dict[str, Figures], results: Path) -> Path:
    """Rung 5: total energy of NVE, caloric curves and heat capacities."""
    figure, (energy, curve, heat) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for colour, (name, c) in zip(COLOURS, columns.items(), strict=False):
        if "slope" in c.get("drift", {}):
            values = np.array(c["drift"]["energies"])
            energy.plot(np.arange(len(values)) * 0.2, (values - values.mean()) * 1e6, lw=0.6, color=colour, label=name)
        for n, style in (("13", "o-"), ("55", "s--")):
            if c.get("caloric", {}).get(n):
                t, e, wide, cv, cv_wide = np.array(c["caloric"][n]).T
                curve.errorbar(t, e, wide, fmt=style, ms=4, color=colour)
                heat.errorbar(t, cv, cv_wide, fmt=style, ms=4, color=colour, label=f"{name}, {n} atoms")
    for n, shade in (("13", 0.1), ("55", 0.2)):
        region = _melting([c["caloric"][n] for c in columns.values() if c.get("caloric", {}).get(n)])
        for axis in (curve, heat) if region else ():
            axis.axvspan(*region, color="grey", alpha=shade, label=f"melting, {n} atoms")
    energy.set(title="NVE, 55 atoms", xlabel="time (tau)", ylabel="energy - mean (1e-6 epsilon/atom)")
    curve.set(
        title="Caloric curves of 13 (solid) and 55 atoms",
        xlabel="temperature (epsilon/kB)",
        ylabel="potential energy (epsilon/atom)",
    )
    heat.set(title="Heat capacity", xlabel="temperature (epsilon/kB)", ylabel="per atom (kB)")
    return _save(figure, (energy, curve, heat), results / "lj_ladder_dynamics.png")


def _melting(curves: list[list[list[float]]]) -> tuple[float, float] | None:
    """Temperatures between which the energy, as the mean of all columns, rises fastest: above half of the way from the
    first slope to the largest. One run crosses a transition once, and fluctuations alone would not show it."""
    energies: dict[float, list[float]] = {}
    for temperature, energy, *_ in itertools.chain(*curves):
        energies.setdefault(temperature, []).append(energy)
    if len(energies) < 3:
        return None
    t, mean = np.array(sorted((t, np.mean(values)) for t, values in energies.items())).T
    slope = np.diff(mean) / np.diff(t)
    high = np.flatnonzero(slope > (slope[0] + slope.max()) / 2)
    return float(t[high[0]]), float(t[high[-1] + 1])


def _save(figure: Any, axes: Any, path: Path) -> Path:
    for axis in axes:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
