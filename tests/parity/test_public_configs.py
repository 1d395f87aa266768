"""Configurations of public repositories, with tiny dimensions, as transformers reads the same directory; and
what transformers takes for fields that a file has not got.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from llm_jax.interop.fields import Fields
from llm_jax.interop.huggingface.family_defaults import DEFAULTS
from llm_jax.interop.huggingface.read_config import FAMILIES, config_fields, read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import import_params
from llm_jax.model.decoder import forward
from llm_jax.proofs.tutorial import as_batch
from tests.parity.families import PLAIN
from tests.parity.test_families import require_near
from tests.support.public_configs import REFUSED, files, shrunk

CONFIGS = files("config.json")
WINDOW = np.random.default_rng(0).integers(0, 100, (2, 61))
# Fields that must be what they are by default, or that say nothing without another.
FIXED = {"scale_attn_weights", "decoder_sparse_step", "original_max_position_embeddings"}


def require_same_logits(folder: Path, config: dict[str, Any], scale: float = 1.0) -> None:
    """Writes random weights for a configuration, and compares what both make of the directory."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    with torch.no_grad():
        made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), **PLAIN)
        for parameter in made.parameters():
            parameter += 0.2 * scale * torch.randn_like(parameter)
        made.float().save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config))  # as it was
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **PLAIN).eval()
        wanted = theirs(torch.tensor(WINDOW[:, :-1])).logits.numpy()
    found = open_directory(folder)
    model = dataclasses.replace(read_model_config(config), dtype="float32", param_dtype="float32")
    params = import_params(config["model_type"], model, found.shapes, found.read)
    logits = np.asarray(jax.jit(forward, static_argnums=1)(params, model, as_batch(WINDOW).tokens)[0])
    require_near(logits, wanted, 1e-4, 1e-5)
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("repository", sorted(CONFIGS.keys() - REFUSED.keys()))
def test_logits_of_a_public_configuration_equal_transformers(repository: str, tmp_path: Path) -> None:
    require_same_logits(tmp_path / "model", shrunk(CONFIGS[repository]))


# Families whose file says as little as transformers lets it, besides dimensions.
BARE = {"vocab_size": 272, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3}
BARE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
BARE |= {"pad_token_id": None}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LEAST: dict[str, dict[str, Any]] = dict.fromkeys(FAMILIES, BARE)
LEAST["gpt2"] = {
    "vocab_size": 272,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LEAST |= {"mistral": BARE | {"sliding_window": 5}, "gemma2": BARE | {"sliding_window": 5}}
LEAST |= {
    "gemma3_text": BARE | {"sliding_window": 5, "num_hidden_layers": 7},
    "mixtral": BARE | {"num_local_experts": 4},
}
LEAST |= {"qwen3_moe": BARE | MOE, "qwen3": BARE | {"use_sliding_window": True, "sliding_window": 5}}


@pytest.mark.parametrize("family", FAMILIES)
def test_fields_that_a_file_has_not_got_are_transformers_own(family: str, tmp_path: Path) -> None:
    scale = 2.0 if family == "gemma2" else 1.0  # so that its caps show
    require_same_logits(tmp_path / "model", {"model_type": family} | LEAST[family], scale)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_default_is_transformers_own(family: str) -> None:
    kind = transformers.CONFIG_MAPPING[family]
    theirs = {field.name: field.default for field in dataclasses.fields(kind)}
    theirs["rope_theta"] = getattr(kind, "default_theta", None)
    if family == "gemma3_text":
        theirs["rope_local_base_freq"] = kind.default_theta["local"]
        theirs["rope_theta"] = kind.default_theta["global"]
        theirs["sliding_window_pattern"] = kind()._sliding_window_pattern
    assert {name: theirs[name] for name in DEFAULTS[family]} == DEFAULTS[family]
    # What is not in the table is known to change nothing, or null, which is what a missing field is to us.
    rest = {name: value for name, value in theirs.items() if name not in DEFAULTS[family].keys() | FIXED}
    Fields(rest | {"rope_theta": None}, "the rest").finish()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_with_every_field_spelt_out_is_read(family: str) -> None:
    spelt = transformers.CONFIG_MAPPING[family]().to_dict() | {"model_type": family}
    wanted, got = (read_model_config(fields) for fields in ({"model_type": family}, spelt))
    assert got == dataclasses.replace(wanted, num_kv_heads=got.num_kv_heads, d_head=got.d_head)
    assert (got.kv_heads, got.head_dim) == (wanted.kv_heads, wanted.head_dim)
    assert config_fields(spelt).left()


GEMMA = BARE | {"model_type": "gemma3_text", "num_hidden_layers": 7, "sliding_window": 5}
ODD: dict[str, dict[str, Any]] = {
    "flat rope_scaling in Gemma 3": GEMMA | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    "older thetas beside newer kinds": GEMMA
    | {"rope_theta": 900.0, "rope_local_base_freq": 50.0}
    | {
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0}, "sliding_attention": {}}
    },
    "one kind of positions alone": GEMMA | {"rope_parameters": {"sliding_attention": {"rope_theta": 70.0}}},
    "Gemma 2 without caps": BARE
    | {"model_type": "gemma2", "sliding_window": 5, "head_dim": 8, "query_pre_attn_scalar": 11}
    | {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "older names in Gemma 2, which nothing reads": BARE
    | {"model_type": "gemma2", "sliding_window": 5, "sliding_window_size": 4096, "hidden_act": "relu"},
    "nulls for what a head and its groups are": BARE
    | {"model_type": "llama", "head_dim": None, "num_key_value_heads": None},
    "a window that is off": BARE | {"model_type": "mistral", "sliding_window": None},
    "windows from a layer on, and none used": BARE
    | {"model_type": "qwen2", "max_window_layers": 1, "sliding_window": 5, "use_sliding_window": False},
    "all layers full": BARE
    | {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 5}
    | {"layer_types": ["full_attention"] * 3, "max_window_layers": 0, "head_dim": 8},
    "older and newer names of a scaling": BARE
    | {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 70.0}}
    | {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 70.0},
    "swish": BARE | {"model_type": "llama", "hidden_act": "swish"},
}


@pytest.mark.parametrize("name", ODD)
def test_fields_that_are_easily_overlooked_mean_what_they_mean_to_transformers(
    name: str, tmp_path: Path
) -> None:
    require_same_logits(tmp_path / "model", ODD[name])
