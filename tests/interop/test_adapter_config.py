"""adapter_config.json of LoRA adapters: ranks and scales, and every field taken, silent or refused."""

import re
import time
from typing import Any

import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.peft.read_config import read_adapter_config

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": ["q_proj"]}
QUERY = "model.layers.1.self_attn.q_proj"


def test_rank_and_alpha_are_those_of_the_first_pattern_that_fits() -> None:
    config = read_adapter_config(
        CONFIG
        | {
            "rank_pattern": {
                r"layers\.[01]\.self_attn.q_proj": 9,
                "q_proj": 16,
                "^model.layers.0.mlp.up_proj": 4,
            },
            "alpha_pattern": {"(q|k)_proj": 2, "proj": 100, "up_pro": 100},
            "use_rslora": True,
        }
    )
    assert config.rank(QUERY) == 9
    assert config.scale(QUERY) == 2 / 3
    assert config.rank("model.layers.2.self_attn.q_proj") == 16
    assert config.scale("model.layers.2.self_attn.q_proj") == 0.5
    assert config.scale("model.layers.0.mlp.up_proj") == 5 / 2
    assert config.scale("model.layers.0.mlp.down_proj") == 5 / 3**0.5
    assert read_adapter_config(CONFIG | {"alpha_pattern": {"q_proj": 2}}).scale(QUERY) == 2 / 3


MORE = {"use_dora": True, "lora_bias": True, "layer_replication": [[0, 2]]}
MORE |= {"target_parameters": ["experts.gate_up_proj"], "trainable_token_indices": {"embed_tokens": [1]}}
MORE |= {"alora_invocation_tokens": [1], "megatron_config": {"a": 1}, "loftq_config": {"loftq_bits": 4}}
MORE |= {"use_qalora": True, "use_bdlora": {"a": 1}, "corda_config": {"a": 1}}
MORE |= {name: {"a": 1} for name in ("arrow_config", "kasa_config", "lora_ga_config")}
MORE |= {name: {"a": 1} for name in ("monteclora_config", "velora_config")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({field: value}, f"{field} must be None here, got") for field, value in MORE.items()),
        ({"peft_type": "ADALORA"}, "peft_type must be 'LORA', got 'ADALORA'"),
        ({"peft_type": None}, "peft_type must be str"),
        ({"bias": "lora_only"}, "bias must be 'none' here, got 'lora_only'"),
        ({"new_idea": 1}, "fields that this program does not know: new_idea"),
        ({"torch_dtype": "float32"}, "does not know: torch_dtype"),
        ({"r": 0}, "r must be a whole number from 1"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"use_rslora": 1}, "use_rslora must be bool"),
        ({"modules_to_save": "lm_head"}, "modules_to_save must be list"),
        ({"modules_to_save": [1]}, "modules_to_save must be names of modules, got '[1]'"),
        ({"enable_lora": [True, False, True]}, "does not know: enable_lora"),
        (
            {"init_lora_weights": "pissa_niter_16"},
            "must leave the base's weights as they are, got 'pissa_niter",
        ),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must be dict"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern: q_proj must be a whole number"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "alpha_pattern: q_proj must be a number"),
        ({"alpha_pattern": {"q_(proj": 1}}, "must have regular expressions"),
        ({"alpha_pattern": {r"(\w+)+": 1}}, "none right after a group"),
        ({"alpha_pattern": {".*.*.*.*x": 1}}, "at most 3 of"),
        ({"alpha_pattern": {"x" * 201: 1}}, "at most 200 characters"),
        (
            {"alpha_pattern": {f".*{number}": 1 for number in range(21)}},
            "at most 10,000 entries, and 20 with",
        ),
        ({"rank_pattern": {str(number): 1 for number in range(10_001)}}, "got 10,001 and 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_asks_for_more_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)) as fault:
        read_adapter_config(CONFIG | fields)
    assert len(str(fault.value)) < 400


def test_what_says_nothing_about_the_weights_may_be_anything() -> None:
    nothing = dict.fromkeys(MORE) | {"modules_to_save": [], "loftq_config": {}, "use_dora": False}
    silent = {
        "base_model_name_or_path": "x",
        "task_type": "CAUSAL_LM",
        "revision": "main",
        "lora_dropout": 0.5,
    }
    silent |= {"layers_to_transform": [1], "layers_pattern": "h", "exclude_modules": ["x"], "eva_config": {}}
    silent |= {"enable_lora": None, "merge_weights": False, "unsloth_version": "2025.1", "new_idea": None}
    silent |= {"ensure_weight_tying": True}
    silent |= {"init_lora_weights": "gaussian", "inference_mode": True, "peft_version": "0.1"}
    assert read_adapter_config(CONFIG | nothing | silent) == read_adapter_config(CONFIG)


def test_no_pattern_that_is_let_through_takes_long() -> None:
    worst = {rf".+.+.+\b{number:x}\B.": 1 for number in range(20)}
    config = read_adapter_config(CONFIG | {"alpha_pattern": worst})
    start = time.monotonic()
    for layer in range(3):
        config.scale(f"model.layers.{layer}.block_sparse_moe.experts.100.w1")
    assert time.monotonic() - start < 3
