"""What `import llm_jax` offers is documented, and the examples of the documentation are true."""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import llm_jax
from llm_jax.language_model.model import LanguageModel

pytestmark = pytest.mark.compiles

NAMES = {"llm_jax": llm_jax, "Path": Path, "jax": jax, "jnp": jnp}
OPTIONS = doctest.ELLIPSIS | doctest.REPORT_ONLY_FIRST_FAILURE


def examples(name: str) -> Iterator[doctest.DocTest]:
    """Those of an object's docstring, and of its methods."""
    for found in doctest.DocTestFinder().find(getattr(llm_jax, name), name, globs=dict(NAMES)):
        if found.examples:
            yield found


def run_examples(name: str) -> int:
    count = 0
    for test in examples(name):
        failed, tried = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
        assert not failed, test.name
        count += tried
    return count


@pytest.fixture(scope="module")
def first_run(place: Path) -> Path:
    """The run that the example of `train` makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_jax.api.train.claim_device", lambda report: None)  # as on one device
        assert run_examples("train") > 1
    return place / "runs" / "first"


@pytest.mark.parametrize(
    "name", ["LanguageModel", "Run", "forward", "generate", "init_params", "load", "read_config"]
)
def test_the_examples_are_true(name: str, first_run: Path) -> None:
    assert run_examples(name) > 0


def test_everything_offered_is_there_and_says_what_it_does() -> None:
    assert set(llm_jax.__all__) <= set(dir(llm_jax))
    assert isinstance(llm_jax.__version__, str)
    for name in set(llm_jax.__all__) - {"__version__"}:
        offered: Any = getattr(llm_jax, name)
        assert callable(offered), name
        assert inspect.getdoc(offered), name
    for name in ("generate", "stream", "generate_many", "score", "evaluate", "chat", "save", "logits"):
        assert inspect.getdoc(getattr(LanguageModel, name)), name


def test_a_commands_module_does_not_hide_the_function_of_its_name() -> None:
    from llm_jax.generate import generate
    from llm_jax.train import train

    assert not any(map(inspect.ismodule, (llm_jax.train, llm_jax.generate)))
    assert (train.__module__, llm_jax.train.__module__) == ("llm_jax.train", "llm_jax.api.train")
    assert (generate.__module__, llm_jax.generate.__module__) == ("llm_jax.generate", "llm_jax.api.generate")
