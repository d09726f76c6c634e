"""An executed notebook as one HTML page, and its figures as PNG files."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nbconvert.exporters.html import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters.html import HtmlFormatter

from labkit.labs.metadata import Lab, read_notebook

TEMPLATES = Path(__file__).parent / "templates"
_SHOWN = ["text/html", "image/svg+xml", "image/png", "text/markdown", "image/jpeg", "text/plain"]


@dataclass(frozen=True)
class Figure:
    """A figure of a lab.

    Attributes:
        path: PNG file.
        caption: one line, from the cell's metadata (`labkit.figure`) or its id.
    """

    path: Path
    caption: str


@cache
def page_css() -> str:
    """The style of all pages of a report."""
    return (TEMPLATES / "page.css").read_text()


def write_page(lab: Lab, executed: Path, target: Path, about: str, stopped_at: str = "") -> None:
    """Write an executed notebook as HTML that loads nothing: style and pictures are in it, scripts are not.

    Args:
        about: a few words for the top of the page (duration, provider).
        stopped_at: id of the cell that failed.
    """
    exporter = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
    )
    notebook = read_notebook(executed)
    shown_media(exporter, notebook)
    resources = {
        "lab": {"number": lab.number, "title": lab.title, "about": about, "stopped_at": stopped_at},
        "page_css": page_css(),
        "code_css": HtmlFormatter().get_style_defs(".highlight"),  # type: ignore[no-untyped-call]
        "metadata": {"name": lab.name, "path": str(executed.parent)},
    }
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    text = re.sub(r"\n{3,}", "\n\n", body)
    target.write_text(text, encoding="utf-8", errors="backslashreplace")


def shown_media(exporter: HTMLExporter, notebook: NotebookNode) -> None:
    """Leave of a notebook's outputs what a page without widgets can show, the best form of each first."""
    exporter.config.NbConvertBase.display_data_priority = _SHOWN
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        cell.outputs = (
            [_fit(output) for output in cell.get("outputs", [])] if cell.cell_type == "code" else []
        )
        if cell.cell_type != "code":
            del cell["outputs"]


def _fit(output: NotebookNode) -> NotebookNode:
    """An output without media the page cannot show (widgets without their script)."""
    if "data" in output:
        output.data = {kind: data for kind, data in output.data.items() if kind in _SHOWN}
    return output


def extract_figures(lab: Lab, executed: Path, folder: Path) -> list[Figure]:
    """Write every PNG among a notebook's outputs to `folder`, named NN-cell-id.png."""
    figures: list[Figure] = []
    for cell in read_notebook(executed).cells:
        pictures = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for n, encoded in enumerate(pictures, 1):
            suffix = f"-{n}" if len(pictures) > 1 else ""
            path = folder / f"{lab.number}-{cell.id}{suffix}.png"
            while path.exists():  # somebody's own, as those of the last run have been removed
                path = path.with_stem(f"{path.stem}-x")
            path.write_bytes(base64.b64decode(encoded))
            caption = cell.metadata.get("labkit", {}).get("figure") or cell.id.replace("-", " ")
            figures.append(Figure(path, caption))
    return figures
