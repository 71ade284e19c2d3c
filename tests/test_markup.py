"""Tables as Markdown and HTML."""

from __future__ import annotations

import pandas as pd

from n2n.analysis import markup
from n2n.analysis.markup import escape_markdown, to_markdown


def test_markdown_escapes_bars() -> None:
    assert to_markdown(pd.DataFrame({"a": ["x|y"]})) == "| a |\n| --- |\n| x\\|y |\n"


def test_html_in_names_is_shown_and_not_obeyed() -> None:
    name = "<script>alert(1)</script> a|b *c*"
    shown = escape_markdown(name)
    assert "<" not in shown
    assert "\\*c\\*" in shown
    assert "<script>" not in to_markdown(pd.DataFrame({"category": [name]}))
    assert "<script>" not in str(markup.html_table(pd.DataFrame({"category": [name]})).data)


def test_rows_are_folded_away_below_the_others() -> None:
    frame = pd.DataFrame({"cell": ["a", "b", "c"], "verdict": ["not run", "reproduced", "not run"]})
    above, below = str(markup.html_table(frame, fold="not run").data).split("<details>")
    assert (above.count("<td>"), "<td>b</td>" in above) == (2, True)
    assert "2 rows: not run" in below
    assert below.count("<td>") == 4
    assert "<details>" not in str(markup.html_table(frame[1:2], fold="not run").data)
    assert str(markup.html_table(frame[:1], fold="not run").data).startswith("<details>")
