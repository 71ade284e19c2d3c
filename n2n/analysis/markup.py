"""Tables and names as the text of a page."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from IPython.display import HTML


def to_markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table, without an index."""
    cells = [
        [_cell(value).replace("|", "\\|") for value in row]
        for row in [frame.columns, *frame.itertuples(index=False)]
    ]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|" + " --- |" * len(frame.columns))
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """A name of a folder as plain text of a page, whatever characters it has."""
    return re.sub(r"([\\`*_{}\[\]#!|$~])", r"\\\1", html.escape(text, quote=False))


def html_table(frame: pd.DataFrame, fit: bool = False, fold: str | None = None) -> HTML:
    """A table that scrolls inside its own box on a narrow screen; ``fit`` breaks its lines.

    Rows with a cell that begins with ``fold`` are folded away below the others.
    """
    if frame.empty:
        return _html("<p>Nothing has been run yet.</p>")
    if fold is None:
        return _html(_table(frame, fit))
    away = frame.apply(lambda row: any(str(cell).startswith(fold) for cell in row), axis=1)
    shown = "" if away.all() else _table(frame[~away], fit)
    if away.any():
        summary = f"{away.sum()} rows: {html.escape(fold)}"
        shown += f"<details><summary>{summary}</summary>{_table(frame[away], fit)}</details>"
    return _html(shown)


def _table(frame: pd.DataFrame, fit: bool) -> str:
    head = "".join(f"<th>{_cell(name)}</th>" for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return (
        f'<div class="table-scroll{" fit" if fit else ""}"><table class="table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    """A value as text; what is not defined is left blank."""
    return "" if value != value else html.escape(str(value), quote=False)


def _html(text: str) -> HTML:
    from IPython.display import HTML  # of the notebooks' extra: the command line does without

    return HTML(text)  # type: ignore[no-untyped-call]
