"""Where tests have their data from: a clone alone is enough, and nothing reaches beside it in another way."""

import re
from pathlib import Path

import pytest

from tests.support import shared_data
from tests.support.shared_data import ROOT, SharedData

Skipped, Failed = pytest.skip.Exception, pytest.fail.Exception


def test_what_comes_along_is_found_where_nothing_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_JAX_SHARED_DATA", str(tmp_path / "absent"))
    data = SharedData(tmp_path)
    assert (data / "the-verdict.txt").read_text(encoding="utf-8").startswith("I HAD always thought")
    assert (data / "tinyshakespeare.txt").stat().st_size == 1_115_394
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "the-verdict.txt").write_text("the one beside goes first")
    assert (data / "the-verdict.txt").parent == tmp_path / "absent"


def test_what_cannot_come_along_is_skipped_or_fails_where_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_JAX_SHARED_DATA", str(tmp_path))
    monkeypatch.delenv("LLM_JAX_REQUIRE_DATA", raising=False)
    with pytest.raises(Skipped, match=r"sales_textbook\.txt must be in"):
        _ = SharedData(tmp_path) / "sales_textbook.txt"
    monkeypatch.setenv("LLM_JAX_REQUIRE_DATA", "1")
    with pytest.raises(Failed, match=r"sales_textbook\.txt must be in"):
        _ = SharedData(tmp_path) / "sales_textbook.txt"


def test_nothing_else_reaches_beside_the_checkout() -> None:
    beside = re.compile(r"""ROOT\.parent|ROOT / "\.\.|\.\./shared|/shared/|/ "shared"|SHARED_DATA""")
    own = {Path(shared_data.__file__), Path(__file__)}
    files = [path for folder in ("tests", "llm_jax") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        if path not in own
        for line in path.read_text(encoding="utf-8").splitlines()
        if beside.search(line)
    ]
    assert not found
    assert beside.search(Path(shared_data.__file__).read_text(encoding="utf-8"))


def test_what_comes_along_is_small() -> None:
    assert sum(path.stat().st_size for path in shared_data.ALONG.iterdir()) < 1 << 20
