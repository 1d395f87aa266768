"""LoRA adapters beside peft: logits of the weights that they were merged into."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch

from llm_jax.base.errors import CheckpointError
from llm_jax.config.lora import LoraConfig
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import import_params
from llm_jax.interop.peft.merge import merge_adapter
from llm_jax.interop.peft.write import write_adapter
from llm_jax.model.decoder import forward
from llm_jax.model.lora import IN, MAGNITUDE, OUT, merged, with_adapters
from llm_jax.proofs.tutorial import as_batch
from tests.parity.families import reference
from tests.parity.test_families import WINDOW, arrays, ours, require_near

PATTERNS = {
    "rank_pattern": {"v_proj": 5, "layers.1.mlp.up_proj": 2, r"^model\.layers\.[02]\.self_attn.o_proj": 7}
}
PATTERNS |= {"alpha_pattern": {"q_proj": 3, r"layers\.\d+\.mlp\.down_proj": 40, "self_attn.(v|k)_proj": 1.5}}
TIED = "llama, tied, biases, wide heads"
# Name -> the family, and the fields of the adapter's configuration.
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, every layer, patterns": ("llama", {"target_modules": "all-linear"} | PATTERNS),
    "llama, embedding and head": ("llama", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "llama, some layers": (
        "llama, tied, biases, wide heads",
        {"target_modules": ["k_proj", "down_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "gpt2": ("gpt2", {"target_modules": "all-linear", "fan_in_fan_out": True, "use_rslora": True}),
    "gpt2, positions": ("gpt2", {"target_modules": ["wpe", "c_proj"], "rank_pattern": {"mlp.c_proj": 3}}),
    "gemma2": ("gemma2", {"target_modules": r".*\.[02]\..*_proj", "use_rslora": True} | PATTERNS),
    "qwen2": ("qwen2", {"target_modules": ["q_proj", "gate_proj"], "init_lora_weights": "orthogonal"}),
    "phi3": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"], "rank_pattern": {"qkv_proj": 9}}),
    "qwen3 moe": ("qwen3 moe", {"target_modules": ["o_proj"]}),
    "llama, whole modules": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "input_layernorm"]},
    ),
    "gemma2, a tied head saved whole": (
        "gemma2",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "gpt2, a tied embedding saved whole": ("gpt2", {"target_modules": ["c_fc"], "modules_to_save": ["wte"]}),
    "llama, tied, both saved whole": (
        TIED,
        {"target_modules": ["k_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "llama, tied, both saved whole and tied": (
        TIED,
        {"target_modules": ["k_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "llama, tied, factors of the embedding": (TIED, {"target_modules": ["embed_tokens", "q_proj"]}),
    "llama, tied, factors of the head": (TIED, {"target_modules": ["lm_head"]}),
}


@pytest.mark.filterwarnings(
    "ignore::UserWarning:peft",  # what it sets right by itself
    "ignore::RuntimeWarning:peft",  # patterns that no module of this family matches
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",  # peft asks transformers for it
)
@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_of_an_import_with_an_adapter_equal_pefts(name: str, tmp_path: Path) -> None:
    family, fields = ADAPTERS[name]
    model, config_json = reference(family, "float32")
    model.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 6} | fields)
    ).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        tokens = torch.tensor(WINDOW[:, :-1])
        plain = adapted(tokens).logits.numpy()
        for path, parameter in adapted.named_parameters():
            if "lora_" in path or "modules_to_save" in path:
                parameter += 0.1 * torch.randn_like(parameter)
        wanted = adapted(tokens).logits.numpy()
        adapted.save_pretrained(tmp_path / "adapter")
        merged = adapted.merge_and_unload()(tokens).logits.numpy()
    config = dataclasses.replace(read_model_config(config_json), dtype="float32", param_dtype="float32")
    found, config = merge_adapter(open_directory(tmp_path / "base"), tmp_path / "adapter", config)
    params = import_params(config_json["model_type"], config, found.shapes, found.read)
    logits = np.asarray(jax.jit(forward, static_argnums=1)(params, config, as_batch(WINDOW).tokens)[0])
    require_near(logits, wanted, 1e-4, 1e-5)
    if "tied, factors" not in name:  # peft's own merge changes the embedding and the head as one
        require_near(logits, merged, 1e-4, 1e-5)
    assert np.linalg.norm(wanted - plain) > 0.05 * np.linalg.norm(plain)


# Name -> the family, and which kernels are adapted.
WRITTEN = {
    "llama": ("llama", "*"),
    "llama, tied, biases, wide heads": (TIED, "query,attention_output,mlp_down"),
    "qwen2": ("qwen2", "*"),
    "gpt2": ("gpt2", "attention_output,mlp_*"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:.is_gradient_checkpointing. is deprecated")
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("name", WRITTEN)
def test_logits_of_an_exported_adapter_in_peft_are_ours(name: str, kind: str, tmp_path: Path) -> None:
    family, targets = WRITTEN[name]
    model, config_json = reference(family, "float32")
    params, config = ours(config_json, arrays(model, tmp_path / "base"), "float32")
    lora = LoraConfig(rank=3, alpha=7, kind=kind, targets=targets)  # type: ignore[arg-type]
    adapted = with_adapters(jax.random.key(0), jax.tree.map(np.asarray, params), lora)
    moved = jax.tree.map_with_path(
        lambda path, leaf: (
            leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)
            if path[-1].key in (IN, OUT, MAGNITUDE)
            else leaf
        ),
        adapted,
    )
    count = write_adapter(tmp_path, moved, config, lora, "base")
    assert count % config.num_layers == 0
    tokens = as_batch(WINDOW).tokens
    logits = lambda params: np.asarray(jax.jit(forward, static_argnums=1)(params, config, tokens)[0])  # noqa: E731
    found = peft.PeftModel.from_pretrained(model, str(tmp_path)).eval()
    with torch.no_grad():
        theirs = found(torch.tensor(WINDOW[:, :-1])).logits.numpy()
    require_near(logits(moved), theirs, 1e-4, 1e-5)
    require_near(logits(merged(moved)), theirs, 1e-4, 1e-5)
    plain = logits(params)
    assert np.linalg.norm(theirs - plain) > 0.05 * np.linalg.norm(plain)


def test_an_adapter_of_kernels_that_lie_in_one_matrix_is_refused(tmp_path: Path) -> None:
    model, config_json = reference("gpt2", "float32")
    params, config = ours(config_json, arrays(model, tmp_path / "base"), "float32")
    lora = LoraConfig(rank=3)
    with pytest.raises(CheckpointError, match="in one matrix"):
        write_adapter(tmp_path, with_adapters(jax.random.key(0), params, lora), config, lora, "base")
