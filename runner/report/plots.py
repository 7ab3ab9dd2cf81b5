"""Figures as files: PNG for documents, SVG for print."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure as Canvas

from runner.report.curves import Figure
from runner.report.method_colors import DASHES
from runner.report.method_colors import LIGHT as COLORS

# Those of the page from the fifth on; Matplotlib's own names are the first four's, in which figures are committed.
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", *((0, [pixels / 1.6 for pixels in dash]) for dash in DASHES[4:]))
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    # Without a salt the identifiers in an SVG are random, and the same figure would be other bytes each time.
    "svg.hashsalt": "dcrun",
    # Text as text, not as outlines: smaller files, in which one can search.
    "svg.fonttype": "none",
}


def save(figure: Figure, folder: Path) -> Path:
    """Draw a figure as `<name>.png` and `<name>.svg`.

    The same runs give the same bytes with the same version of Matplotlib.

    Args:
        figure: what to draw; dots mark the published end points.
        folder: where to; it is made if need be.

    Returns:
        the PNG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        columns = min(3, len(figure.panels))
        lines = -(-len(figure.panels) // columns)
        # Not `pyplot.figure`: pyplot keeps every figure until it is closed, and a report draws dozens.
        canvas = Canvas(figsize=(1.6 + 4.2 * columns, 1.0 + 3.2 * lines), layout="constrained")
        axes = canvas.subplots(lines, columns, squeeze=False).flatten()
        names: dict[str, object] = {}
        for axis, panel in zip(axes, figure.panels, strict=False):
            for curve in panel.curves:
                color = COLORS[curve.index % len(COLORS)]
                # When the colours are used up, the dashes tell the next round apart.
                dash = _LINES[curve.index // len(COLORS) % len(_LINES)]
                # A line through one point is invisible.
                marker = "o" if len(curve.y) == 1 else None
                (line,) = axis.plot(curve.x, curve.y, color=color, linestyle=dash, marker=marker, linewidth=1.6)
                low, high = curve.band(figure.log_y)
                if low:
                    axis.fill_between(curve.x, low, high, color=color, alpha=0.15, linewidth=0)
                if curve.published is not None:
                    # Right of the axes: the paper's runs end at its own length, not at our last evaluation.
                    edge = axis.get_yaxis_transform()
                    star = {"color": color, "markersize": 11, "markeredgecolor": "black", "clip_on": False}
                    axis.plot([1.02], [curve.published], "*", transform=edge, zorder=3, **star)
                    # An empty plot with a white star: the legend explains the mark once, in no method's colour.
                    names["published end point"] = axis.plot([], [], "*", color="white", markeredgecolor="black")[0]
                names.setdefault(_literal(curve.name), line)
            axis.set_title(_literal(panel.title), fontsize=10)
            axis.set_xlabel(_literal(panel.x or figure.x))
            if figure.log_x or panel.log_x:
                axis.set_xscale("log")
            if figure.log_y:
                axis.set_yscale("log")
            axis.set_ylabel(_literal(panel.y))
        # A grid of axes may have more places than there are panels.
        for axis in axes[len(figure.panels) :]:
            axis.set_visible(False)
        # False sorts first, so the published mark comes last.
        ordered = sorted(names, key="published end point".__eq__)
        # As many columns as there is room for: below the axes a long name takes nothing from them.
        room = max(1, min(4, int(canvas.get_figwidth() * 11 // (max(map(len, ordered)) + 8))))
        canvas.set_figheight(canvas.get_figheight() + 0.22 * -(-len(ordered) // room))
        lines = [names[name] for name in ordered]
        canvas.legend(lines, ordered, loc="outside lower center", ncols=room, frameon=False)  # type: ignore[arg-type]
        path = folder / f"{figure.name}.png"
        # Without version and date in the files, the same figure gives the same bytes.
        canvas.savefig(path, dpi=110, metadata={"Software": None})
        canvas.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return path


def _literal(text: str) -> str:
    """Return text that Matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
