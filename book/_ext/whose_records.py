"""A line on top of each page where the book shows other records than the repository's.

Tables and figures are made from the folder that ``N2N_RESULTS`` names; the prose is not.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

OURS = Path(__file__).parents[2] / "results"


def shown_records() -> Path:
    """The folder whose records the book shows."""
    return Path(os.environ.get("N2N_RESULTS", OURS))


def announce(app: Sphinx, config: Config) -> None:
    """Say whose records these are, unless they are the repository's own."""
    shown = shown_records()
    if shown.resolve() != OURS.resolve():
        config.html_theme_options["announcement"] = (
            f"Tables and figures show the records in {html.escape(str(shown))}; "
            "the text around them speaks of this project's own."
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the line, before the theme reads its options."""
    app.connect("config-inited", announce)
    return {"parallel_read_safe": True}
