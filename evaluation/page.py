"""Pages of HTML that need no other file, from the templates beside this file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ebmtrack.evaluation.charts import COLORS
from ebmtrack.evaluation.words import explain

_FOLDER = Path(__file__).parent / "templates"


def fill(template: str, **values: object) -> str:
    """Return a template of `evaluation/templates` filled with values; text is escaped."""
    return _environment().get_template(template).render(**values)


def breakable(text: object) -> Markup:
    """Return text for HTML that may break after `_`, as long names do in narrow columns."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    environment.globals.update(style=style, script=script, colors=len(COLORS), explain=explain, breakable=breakable)
    return environment
