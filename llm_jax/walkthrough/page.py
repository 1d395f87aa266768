"""Pages that need nothing beside them: templates filled by jinja2, with style and script inside the file."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm_jax.base.errors import writing

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """A page's HTML from one of the templates here; text values are escaped, `Markup` values are not."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inlined = {
        name: Markup((_TEMPLATES / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")
    }
    return environment.get_template(template).render(**inlined, **values)


def write_page(path: Path, html: str) -> None:
    """Puts a page in its place whole.

    Raises:
        UserError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with writing(path):
            part.write_text(html, encoding="utf-8")
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
