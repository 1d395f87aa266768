"""The table of what may change while a run goes on, the record of it, and what each start runs on."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest

from llm_jax.base.environment import environment
from llm_jax.base.json_lines import read_history
from llm_jax.config import changes, load
from llm_jax.config.effects import values_of
from llm_jax.config.load import config_from_dict, to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.runs import continuing, data, starts
from llm_jax.training.state import abstract_state

_form = cache(abstract_state)


def test_every_setting_is_of_one_kind() -> None:
    kinds = (changes.FREE, changes.FUTURE, changes.FIXED)
    assert set().union(*kinds) == values_of(Config()).keys()
    assert sum(map(len, kinds)) == len(values_of(Config()))


ANOTHER: dict[str, Any] = {
    "model.dtype": "bfloat16",
    "model.layers": "unroll",
    "model.remat": True,
    "optim.schedule": "wsd",
    "train.order": "permutation",
}


@pytest.mark.parametrize("name", sorted(changes.FUTURE - {"model.attention"}))
def test_what_changes_the_future_alone_leaves_the_states_form(name: str) -> None:
    """`model.attention` has rules of its own and no part in the state."""
    base = Config(model=ModelConfig(vocab_size=9, d_model=4, num_layers=1, num_heads=1))
    base = dataclasses.replace(base, optim=OptimConfig(ema_decay=0.5))
    value = ANOTHER.get(name) or values_of(base)[name] * 2 or 1
    if name in ("model.dropout", "model.embedding_dropout", "optim.beta1", "optim.beta2", "optim.ema_decay"):
        value = 0.3
    section, field = name.split(".")
    other = dataclasses.replace(
        base, **{section: dataclasses.replace(getattr(base, section), **{field: value})}
    )
    assert load.changed(base, other).keys() == {name}
    one, two = _form(base), _form(other)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert jax.tree.leaves(one) == jax.tree.leaves(two)


def test_a_change_that_nothing_was_saved_under_leaves_no_trace(tmp_path: Path) -> None:
    """As after a kill before the first save: what counts is the checkpoint that a run goes on from."""

    def with_rate(rate: float) -> Config:
        return Config(optim=OptimConfig(learning_rate=rate), train=TrainConfig(steps=6))

    about = {"config": to_dict(with_rate(0.1)), "step": 6, "changes": []}
    histories = []
    for rate in (0.2, 0.3, 0.1):
        material = data.Materials(with_rate(rate), None)  # type: ignore[arg-type]
        material, _ = continuing.went_on(material, about, 7)
        continuing.write_history(tmp_path, material.history)
        histories.append([line["changes"] for line in material.history])
        assert read_history(tmp_path / "changes.jsonl") == material.history
    assert histories == [[{"optim.learning_rate": [0.1, rate]}] for rate in (0.2, 0.3)] + [[]]
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_of_a_step_undoes_what_came_later_but_no_paths() -> None:
    now = dataclasses.replace(Config(), train=dataclasses.replace(Config().train, steps=30, init_from=""))
    values = to_dict(now)
    values["optim"]["learning_rate"] = 0.3
    values["data"]["corpus"] = "new.txt"
    history = [
        changes.entry(10, 10, {"optim.learning_rate": (0.1, 0.2), "data.corpus": ("old.txt", "new.txt")}),
        changes.entry(20, 21, {"optim.learning_rate": (0.2, 0.3), "train.steps": (20, 30)}),
    ]
    at = {step: changes.config_at(values, history, step, "it") for step in (1, 10, 11, 20, 21)}
    assert [config.optim.learning_rate for config in at.values()] == [0.1, 0.1, 0.2, 0.2, 0.3]
    assert [config.train.steps for config in at.values()] == [20, 20, 20, 20, 30]
    assert {config.data.corpus for config in at.values()} == {"new.txt"}
    assert at[21] == config_from_dict(values, "it")


def test_each_start_is_kept_and_says_what_is_not_as_at_the_last(tmp_path: Path) -> None:
    now = environment()
    for step in (0, 4, 8):
        starts.add_start(tmp_path, step, now)
    last = starts.read_start(tmp_path)
    assert [last["step"], *(start["step"] for start in last["earlier"])] == [8, 0, 4]
    assert all(start["versions"] == now["versions"] for start in [last, *last["earlier"]])
    assert starts.deviations(last, now) == []
    other = json.loads(json.dumps(now))
    other["versions"] |= {"jax": "0.1", "numpy": "1.0"}
    other |= {"devices": ["TPU v5"] * 4, "threads": 999, "variables": {"XLA_FLAGS": "--a"}}
    found = starts.deviations(other, now | {"devices": ["cpu", "cpu"], "variables": {}})
    assert found == [
        f"jax 0.1 -> {jax.__version__}",
        f"numpy 1.0 -> {now['versions']['numpy']}",
        "devices TPU v5 -> cpu",
        f"threads 999 -> {now['threads']}",
        "variables XLA_FLAGS=--a -> none",
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"versions": 3, "earlier": {}}', "[" * 9999, '{"threads": NaN}']
)
def test_a_damaged_record_of_starts_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / starts.FILE).write_text(content)
    assert isinstance(starts.deviations(starts.read_start(tmp_path), environment()), list)
    starts.add_start(tmp_path, 3, environment())
    assert starts.read_start(tmp_path)["step"] == 3


def test_lines_of_changes_that_are_none_are_left_out(tmp_path: Path) -> None:
    sound = {"step": 3, "changes": {"train.steps": [1, 2]}}
    odd: list[Any] = [{"step": 1}, {"step": 1, "changes": 3}, {"step": 1, "changes": {"a": 1}}]
    lines = [*map(json.dumps, [*odd, sound]), "{", "3"]
    (tmp_path / "changes.jsonl").write_text("\n".join(lines))
    assert continuing.told(read_history(tmp_path / "changes.jsonl")) == [(3, "train.steps: 1 -> 2")]
