"""How `make docs` makes the site: the repository is Sphinx's source, so that each page is the file that is read
anywhere else, with the same links. Settings and the Python API come out of the code's own docstrings.
"""

import shutil
import tomllib
from pathlib import Path
from typing import Any

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


def _add_pages(app: Any, page: str, text: list[str]) -> None:
    if page == root_doc:
        text[0] += _PAGES


def _make_home(app: Any, error: Exception | None) -> None:
    """The site begins with the README, where a browser looks for index.html."""
    if error is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Any) -> None:
    """Connect what is ours with Sphinx, which calls this."""
    app.connect("source-read", _add_pages)
    app.connect("build-finished", _make_home)
