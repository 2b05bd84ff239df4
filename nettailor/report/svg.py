"""Pictures as SVG inside a page: text stays text, names are the picture's own."""

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")

INK, FAINT_INK, GRID = "#1f2328", "#57606a", "#dde1e6"
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"""(?:url\(|href=")#([^)"]*)""")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text can be read, searched and selected
    "svg.hashsalt": "nettailor",  # the same picture is the same text each time
    "text.parse_math": False,  # class names may hold dollar signs
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": FAINT_INK,
    "ytick.color": FAINT_INK,
    "axes.edgecolor": FAINT_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def chart_style() -> Iterator[None]:
    """How all pictures look; they are made and written inside it."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # names may be in any script: the reader's browser has the fonts
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def widest(texts: Iterable[str], size: float) -> float:
    """Pixels of a page that the widest of the texts takes at a font size in points."""
    figure = Figure(dpi=96)
    widths = [figure.text(0, 0, text, size=size).get_window_extent().width for text in texts]
    return max(widths, default=0.0)


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element.

    Args:
        figure: made inside `chart_style`.
        name: a word that no other picture of the page has; it leads every id.
        title: what a reader who cannot see the picture is told.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(text.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # a style in here would hold for the whole page
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    referred = set(_REFERENCE.findall(text.getvalue()))
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id" and value not in referred:
                del element.attrib[key]
            elif key == "id":
                element.set(key, f"{name}-{value}")
            elif key == f"{{{_XLINK}}}href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    width, height = (round(float(value) * 96 / 72) for value in root.attrib["viewBox"].split()[2:])
    root.set("width", str(width))
    root.set("height", str(height))
    root.set("style", "stroke-linejoin:round;stroke-linecap:butt")
    root.set("role", "img")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")
