"""Directives that build the ledger's pages from ``book/decisions.csv``.

``{decisions-overview}`` is a table of all decisions; ``{decisions} TOPIC`` writes out those of one
topic. The values of settings are taken from `n2n.settings`, so the ledger cannot disagree with
the code, and the measured effects from the run records (`n2n.analysis.effects`). A decision
that a run has tested is marked as measured, whatever the file says.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from whose_records import shown_records

from n2n.analysis.effects import effects_table, of_choices
from n2n.analysis.markup import to_markdown
from n2n.analysis.sensitivity import BASE, study_runs
from n2n.settings import PRESETS, Settings

# Where effects were measured, and around which settings.
SIZES = {
    "in the small study of [One choice at a time](executed/sensitivity.ipynb)": BASE,
    "at full size, against the runs of the tables": PRESETS["replication"],
}
EVIDENCE = {"measured", "argued", "not yet measured"}


class Ledger(SphinxDirective):
    """What both directives share: the rows, and Markdown written into the page."""

    def rows(self) -> list[dict[str, str]]:
        """All decisions; the page is rebuilt when their file changes."""
        path = Path(self.env.srcdir) / "decisions.csv"
        self.env.note_dependency(str(path))
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            if row["evidence"] not in EVIDENCE:
                raise self.error(f"{row['id']}: unknown evidence {row['evidence']!r}")
            unknown = set(row["setting"].split()) - PRESETS["replication"].as_dict().keys()
            if unknown:
                raise self.error(f"{row['id']}: no such setting: {', '.join(unknown)}")
            if not all(effects_of(row, size).empty for size in SIZES.values()):
                row["evidence"] = "measured"
        return rows

    def write(self, lines: list[str]) -> list[nodes.Node]:
        """Markdown as nodes of the page."""
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, container)
        return container.children


@lru_cache
def all_effects(base: Settings) -> pd.DataFrame:
    """Every measured effect around a base; the records are read once."""
    return of_choices(study_runs(shown_records(), base))


def effects_of(row: dict[str, str], base: Settings) -> pd.DataFrame:
    """The effects of the variants that change nothing but a decision's settings."""
    found, names = all_effects(base), set(row["setting"].split())
    return found[[set(changed) <= names for changed in found["changed"]]]


class Overview(Ledger):
    """A table: number, question with its evidence, our choice."""

    def run(self) -> list[nodes.Node]:
        """The table's nodes."""
        lines = ["| | question | our choice |", "| --- | --- | --- |"]
        for row in self.rows():
            choice = row["choice"].replace("|", "\\|")
            link = f"[{row['id']}](#{row['id'].lower()})"
            lines.append(f"| {link} | {row['question']} {badge(row)} | {choice} |")
        return self.write(lines)


class Decisions(Ledger):
    """The decisions of a topic, each as a card."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The cards' nodes."""
        rows = [row for row in self.rows() if row["topic"] == self.arguments[0]]
        if not rows:
            raise self.error(f"no decision has the topic {self.arguments[0]!r}")
        lines: list[str] = []
        for row in rows:
            lines += card(row)
        return self.write(lines)


def card(row: dict[str, str]) -> list[str]:
    """One decision in Markdown."""
    where = f"Section {row['section']}"
    quoted = f"“{row['quote']}” ({where})" if row["quote"] else f"Nothing ({where})."
    parts = [
        ("The paper says", quoted),
        ("Read literally", row["literal"]),
        ("Alternatives", row["alternatives"]),
        ("Our choice", f"**{row['choice']}**"),
        ("Why", row["reason"]),
        ("How sure", row["sure"]),
    ]
    if row["setting"]:
        parts.append(("Settings", "; ".join(values(name) for name in row["setting"].split())))
    lines = [
        f"({row['id'].lower()})=",
        f"::::{{card}} {row['id']} · {row['question']}",
        ":class-card: decision",
        badge(row),
        "",
    ]
    for name, text in parts:
        if text:
            lines += [name, f": {text}", ""]
    for where, base in SIZES.items():
        found = effects_of(row, base)
        if not found.empty:
            lines += [f"Change of AUROC in points, {where}:", ""]
            lines += [*to_markdown(effects_table(found, narrow=True)).splitlines(), ""]
    return [*lines, "::::", ""]


def badge(row: dict[str, str]) -> str:
    """How well a choice is founded."""
    return f"[{row['evidence']}]{{.badge-{row['evidence'].split()[0]}}}"


def values(name: str) -> str:
    """A setting's value in `replication`, and in `paper` where it differs."""
    ours, literal = (PRESETS[preset].as_dict()[name] for preset in ("replication", "paper"))
    text = f"`{name}` = {shown(ours)}"
    return text if ours == literal else f"{text} (preset `paper`: {shown(literal)})"


def shown(value: Any) -> str:
    """A value as a reader writes it."""
    if isinstance(value, tuple):
        return ", ".join(f"{item:g}" for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("decisions", Decisions)
    app.add_directive("decisions-overview", Overview)
    return {"parallel_read_safe": True}
