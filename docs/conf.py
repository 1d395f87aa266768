"""How `make docs` makes the site: the repository is Sphinx's source, so that each page is the file that is
read anywhere else, with the same links. Settings and the Python API come out of the code's own docstrings.
"""

import dataclasses
import importlib
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parent.parent
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "llm_jax"
author = ", ".join(each["name"] for each in _PROJECT["authors"])
version = release = _PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "benchmarks/RESULTS.md"]
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "benchmarks")
]

myst_heading_anchors = 3  # GitHub's names of headings, which links use
suppress_warnings = ["toc.not_included"]  # the Chinese README is linked at the top of the English one

default_role = "literal"  # `name` in a docstring is code, as it is in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"llm_jax {version}"
html_copy_source = False

# The order of the pages in the site; on their own they are linked where they are spoken of.
_PAGES = """
```{toctree}
:hidden:

docs/first_hour
docs/commands
docs/python
docs/configuration
docs/results
docs/glossary
docs/architecture
docs/experiments
benchmarks/RESULTS
CONTRIBUTING
CHANGELOG
SECURITY
```
"""


_SETTINGS = re.compile(r"<!-- settings of (\w+)\.(\w+) -->")


def _settings(module: str, name: str) -> str:
    """Return a table of a section's settings, with the documentation that stands below each field."""
    path = f"llm_jax.config.{module}"
    section = getattr(importlib.import_module(path), name)
    told = ModuleAnalyzer.for_module(path).find_attr_docs()
    types = get_type_hints(section)
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.default):
            continue  # a section of its own
        default = str(field.default) if isinstance(field.default, Path) else field.default
        if isinstance(default, bool):
            default = str(default).lower()  # as TOML has it
        shown = "" if default in ("", None) else f"`{default}`"
        text = " ".join(told[name, field.name]).strip().replace("|", "\\|")
        if get_origin(types[field.name]) is Literal:
            text += f" One of {', '.join(f'`{choice}`' for choice in get_args(types[field.name]))}."
        lines.append(f"| `{field.name}` | {shown} | {text} |")
    return "\n".join(lines)


def _fill_in(app: Any, page: str, text: list[str]) -> None:
    text[0] = _SETTINGS.sub(lambda found: _settings(found[1], found[2]), text[0])
    if page == root_doc:
        text[0] += _PAGES


def _make_home(app: Any, error: Exception | None) -> None:
    """The site begins with the README, where a browser looks for index.html."""
    if error is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Any) -> None:
    """Connect what is ours with Sphinx, which calls this."""
    app.connect("source-read", _fill_in)
    app.connect("build-finished", _make_home)
