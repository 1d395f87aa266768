"""Our settings as config.json: in the words of transformers 4 and 5 alike, and files that hold both."""

from typing import Any

import pytest

from llm_jax.interop.huggingface.read_config import FAMILIES, read_model_config
from llm_jax.interop.huggingface.write_config import write_model_config
from tests.interop.test_families import GEMMA, LLAMA, LLAMA3, example
from tests.interop.test_sources import refusal_of

PLAIN = {"rope_type": "default", "rope_theta": 66.0}
LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 55.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4, "rope_theta": 9.0}
STRETCHED = LLAMA3 | {"original_max_position_embeddings": 9, "rope_theta": 77.0}
# What only the one and only the other generation of programs reads.
NEWER = {"rope_parameters", "dtype", "layer_types"}
OLDER = {"rope_theta", "rope_scaling", "rope_local_base_freq", "partial_rotary_factor", "torch_dtype"}
OLDER |= {"sliding_window_pattern", "max_window_layers"}
MORE: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window_pattern": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
    "mistral": {"sliding_window": 5},
    "phi3": {"head_dim": 4},
}


def described(family: str, rope: dict[str, Any]) -> dict[str, Any]:
    """A config.json of this family, off its defaults wherever the generations differ."""
    fields = {name: value for name, value in example(family).items() if name != "rope_theta"}
    if family == "phi3":
        rope = rope | {"partial_rotary_factor": 0.5}
    if family == "gemma3_text":
        rope = {"full_attention": rope, "sliding_attention": PLAIN | {"rope_theta": 33.0}}
    return fields | MORE.get(family, {}) | ({} if family == "gpt2" else {"rope_parameters": rope})


@pytest.mark.parametrize(
    ("family", "rope"),
    [
        pytest.param(family, rope, id=f"{rope['rope_type']}-{family}")
        for family in FAMILIES
        for rope in ((PLAIN,) if family == "phi3" else (PLAIN, LINEAR, STRETCHED, YARN))
    ],
)
def test_older_and_newer_words_each_say_all(family: str, rope: dict[str, Any]) -> None:
    config = read_model_config(described(family, rope))
    written = write_model_config(config)
    assert written["torch_dtype"] == written["dtype"] == config.param_dtype
    wanted = read_model_config(written)
    for left_out in (NEWER, OLDER):
        assert read_model_config({name: written[name] for name in written.keys() - left_out}) == wanted


def test_layers_without_windows_stay_so_in_a_family_that_has_them() -> None:
    config = read_model_config(GEMMA | {"layer_types": ["full_attention"] * 12})
    assert read_model_config(write_model_config(config)) == config


PHI3 = {"model_type": "phi3", "partial_rotary_factor": 0.25}
GEMMA3_ROPE = {"full_attention": PLAIN | {"rope_theta": 500}, "sliding_attention": PLAIN}
CONTRADICTIONS = [
    (
        LLAMA | {"rope_parameters": {"rope_theta": 501}},
        "rope_theta must be the same under its older and its newer name, got '500' and '501'",
    ),
    (
        LLAMA | {"rope_scaling": LINEAR},
        "rope_theta must be the same under its older and its newer name, got '500' and '55.0'",
    ),
    (LLAMA | {"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}}, "rope_type must be"),
    (
        LLAMA | {"rope_theta": 55, "rope_scaling": LINEAR, "rope_parameters": LINEAR | {"factor": 4.0}},
        "the scaling of rotary positions must be the same",
    ),
    (
        LLAMA | {"rope_theta": 55, "rope_scaling": LINEAR, "rope_parameters": {"rope_theta": 55}},
        "the scaling of rotary positions must be the same",
    ),
    (LLAMA | PHI3 | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor must be"),
    (GEMMA | {"rope_local_base_freq": 7.0, "rope_parameters": GEMMA3_ROPE}, "rope_local_base_freq must be"),
    (
        GEMMA | {"sliding_window_pattern": 3, "layer_types": ["sliding_attention", "full_attention"] * 6},
        "layer_types (or sliding_window_pattern) must be the same",
    ),
]


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS)
def test_words_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    assert f"config.json: {message}" in refusal_of(lambda: read_model_config(fields))
