"""What a package index shows: README.md with links and pictures that lead somewhere from there.

An index knows nothing of the repository, so a relative link or picture is dead on it. LLM_JAX_REPOSITORY,
the address of the repository that a release is built from, makes them absolute, at the tag of the version,
and gives the project's links. Without it, as in every local installation, pictures are left out and links
become words.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^]]*)\]\((?!\w+:)([^)]+)\)\n?")
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\((?!\w+:|#)([^)]+)\)")
_PAGES = {
    "Documentation": "docs/first_hour.md",
    "Changelog": "CHANGELOG.md",
    "Results": "docs/results.md",
}


def index_readme(text: str, repository: str, version: str) -> str:
    """Return a README whose pictures and links do not depend on where it is read.

    Args:
        text: of README.md, in Markdown.
        repository: address of the repository, such as https://host/owner/name; "" for none.
        version: of the package, whose tag is v and the version.
    """
    if not repository:
        return _LINK.sub(r"\1", _PICTURE.sub("", text))
    text = _PICTURE.sub(rf"![\1]({repository}/raw/v{version}/\2)\n", text)
    return _LINK.sub(rf"[\1]({repository}/blob/v{version}/\2)", text)


def project_urls(repository: str, version: str) -> dict[str, str]:
    """Return the links that an index shows beside the README; none without a repository."""
    if not repository:
        return {}
    pages = {name: f"{repository}/blob/v{version}/{page}" for name, page in _PAGES.items()}
    return {"Repository": repository, "Issues": f"{repository}/issues"} | pages


class ReadmeHook(MetadataHookInterface):
    """Hatchling's way in, for what pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Give the README and the links."""
        repository = os.environ.get("LLM_JAX_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        shown = index_readme(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
        if urls := project_urls(repository, metadata["version"]):
            metadata["urls"] = urls
