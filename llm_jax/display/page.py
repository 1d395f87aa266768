"""Pages that need nothing beside them: templates filled by jinja2, with style and script inside the file."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm_jax.base.errors import writing
from llm_jax.base.files import made_whole

_SHARED = Path(__file__).parent / "templates"


def render(template: Path, **values: Any) -> str:
    """Return a page's HTML; text values are escaped, `Markup` values are not.

    Args:
        template: a file, which may use those beside it and those that all pages share.
        **values: what it names.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inlined = {name: Markup((_SHARED / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return environment.get_template(template.name).render(**inlined, **values)


def write_page(path: Path, html: str) -> None:
    """Put a page in its place whole.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path), made_whole(path) as part:
        part.write_bytes(html.encode("utf-8", "backslashreplace"))  # names of files need not be text
