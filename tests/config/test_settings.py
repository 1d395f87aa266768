"""Every setting is read by something that runs, and described."""

import ast
import dataclasses

import pytest

from llm_jax.config.model import RotaryConfig
from llm_jax.config.run import Config
from tests.test_architecture import FILES

SCHEMAS = ("config/run.py", "config/model.py", "config/decoding.py", "config/task.py")


def settings_read() -> set[str]:
    """Names of all attributes that something outside the schemas reads."""
    others = (source for path, source in FILES.items() if path not in SCHEMAS)
    return {
        node.attr
        for source in others
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
    }


def derived_settings() -> dict[str, str]:
    """Settings that are read through a property of their section."""
    derived = {"d_ff": "mlp_width", "d_head": "head_dim", "num_kv_heads": "kv_heads"}
    derived |= {"base_width": "width_ratio"}
    return derived | {"global_every": "is_global", "fraction": "rotary_dim", "local_theta": "in_windows"}


@pytest.mark.parametrize(
    "kind",
    [*(field.type for field in dataclasses.fields(Config)), RotaryConfig],
    ids=lambda kind: kind.__name__,
)
def test_no_setting_is_dead_and_each_is_documented(kind: type) -> None:
    read = settings_read()
    body = next(
        node
        for path in SCHEMAS
        for node in ast.parse(FILES[path]).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ).body
    documented = {
        node.target.id
        for node, after in zip(body, body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
    }
    for field in dataclasses.fields(kind):
        assert derived_settings().get(field.name, field.name) in read, (
            f"{kind.__name__}.{field.name} is read by nothing"
        )
        assert field.name in documented, f"{kind.__name__}.{field.name} has no description"
