"""The critical-difference diagram of Demšar 2006, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape

from engine.errors import UserError

INK, FAINT = "#010203", "#040506"  # stand for the page's colours until the drawing is a text
COLOURS = {INK: "currentColor", FAINT: "var(--faint, currentColor)"}


def diagram(average: Mapping[str, float], difference: float, cliques: Sequence[Sequence[str]]) -> str:
    """SVG of average ranks, in which bars join the backbones of a clique. Raises UserError without scikit-posthocs."""
    try:
        import matplotlib as mpl
        import pandas as pd
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        mpl.use("svg")  # scikit-posthocs imports pyplot, which would look for a screen
        from scikit_posthocs import critical_difference_diagram
    except ImportError as problem:
        raise UserError(
            f"the diagram of ranks needs scikit-posthocs, which can't be imported ({problem}).\n"
            "Install it: pip install -r requirements-report.txt"
        ) from problem
    names = sorted(average, key=lambda name: (average[name], name))
    alike = pd.DataFrame(0.0, names, names)  # p-values, or what the diagram makes of them
    for clique in cliques:
        alike.loc[list(clique), list(clique)] = 1.0
    for name in names:
        alike.loc[name, name] = 1.0
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": repr(sorted(average.items())), "text.parse_math": False}
    ):
        figure = Figure((7.5, 1.1 + 0.21 * len(names)))
        axes = figure.add_axes((0.2, 0.02, 0.6, 0.96))
        drawn = critical_difference_diagram(
            {name: average[name] for name in names},
            alike,
            ax=axes,
            label_fmt_left="{label} {rank:.2f}\N{NO-BREAK SPACE}",
            label_fmt_right="\N{NO-BREAK SPACE}{rank:.2f} {label}",
            label_props={"size": 10},
            marker_props={"color": INK, "s": 14},
            elbow_props={"color": FAINT, "linewidth": 1},
            crossbar_props={"color": INK, "linewidth": 3},
        )
        for (line,) in drawn["crossbars"]:  # whose points come in the order of a set of names
            reach = sorted(line.get_xdata())
            line.set_data([reach[0], reach[-1]], line.get_ydata()[:2])
        # above the numbers of the scale, on which it would be written by that function
        first = average[names[0]]
        axes.plot([first, first + difference], [1.6, 1.6], color=INK, linewidth=3, solid_capstyle="butt")
        axes.text(first, 2.0, f"critical difference {difference:.2f}", size=10)
        axes.set_ylim(top=2.8)
        for words in axes.texts:
            words.set_color(INK)
        axes.patch.set_visible(False)
        figure.patch.set_visible(False)
        axes.spines["top"].set_color(INK)
        axes.tick_params(colors=INK)
        file = io.StringIO()
        FigureCanvasSVG(figure)
        # as large as the names make it
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    label = ", ".join(f"{name} {average[name]:.2f}" for name in names)
    return _for_a_page(file.getvalue(), f"Critical-difference diagram: {label}")


def _for_a_page(text: str, label: str) -> str:
    text = text[text.index("<svg") :].strip()
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # several drawings stand in one page: no id twice, no style for all of it, and the page's font
    text = re.sub(r' id="[\w.]+_[0-9]+"', "", text)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r' clip-path="url\([^)]*\)"', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    return re.sub(r"\s*\n\s*", "\n", text)
