"""Other programs' configurations and tensors: what is taken, and what is refused by name."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import flatten
from llm_jax.config.model import ModelConfig
from llm_jax.interop.huggingface.read_config import FAMILIES, read_model_config
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params, parts
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.model.decoder import forward, init_params

pytestmark = pytest.mark.compiles

LLAMA: dict[str, Any] = {"model_type": "llama", "vocab_size": 31, "hidden_size": 12, "intermediate_size": 20}
LLAMA |= {"num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3, "hidden_act": "silu"}
LLAMA |= {"max_position_embeddings": 16, "rms_norm_eps": 1e-6, "rope_theta": 500, "torch_dtype": "bfloat16"}
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 4, "query_pre_attn_scalar": 4, "sliding_window": 8}
GEMMA = {name: value for name, value in GEMMA.items() if name != "hidden_act"}
GEMMA |= {"hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": 12}
GPT2 = {"model_type": "gpt2", "vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
GPT2 |= {"activation_function": "gelu_new"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 3}
QWEN3_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 14, "norm_topk_prob": True}
OWN = {"mixtral": MIXTRAL, "qwen3_moe": QWEN3_MOE}


def example(family: str) -> dict[str, Any]:
    """A config.json of this family."""
    if family == "gpt2":
        return GPT2
    if family in OWN:
        return LLAMA | {"model_type": family} | OWN[family]
    return (GEMMA if family.startswith("gemma") else LLAMA) | {"model_type": family}


def test_a_configuration_is_the_same_in_older_and_newer_words() -> None:
    newer = {name: value for name, value in LLAMA.items() if name != "rope_theta"}
    newer["rope_parameters"] = {"rope_type": "default", "rope_theta": 500}
    assert read_model_config(newer) == read_model_config(LLAMA)
    scaling = LLAMA3 | {"original_max_position_embeddings": 8}
    older = read_model_config(LLAMA | {"rope_scaling": scaling})
    assert older == read_model_config(newer | {"rope_parameters": scaling | {"rope_theta": 500}})
    assert (older.rotary.scaling, older.rotary.factor, older.rotary.theta) == ("llama3", 8.0, 500.0)


def test_a_file_that_does_not_say_whether_its_head_is_tied_means_its_familys_usual_way() -> None:
    for family, tied in (("llama", False), ("qwen3", False), ("gemma2", True), ("gemma3_text", True)):
        assert read_model_config(example(family)).tied_head == tied
    assert read_model_config(GPT2).tied_head


def test_windows_come_from_patterns_kinds_and_defaults_alike() -> None:
    usual = read_model_config(GEMMA)
    assert (usual.sliding_window, usual.global_every, usual.rotary.local_theta) == (8, 6, 10000.0)
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 4
    for more in ({"sliding_window_pattern": 3}, {"layer_types": kinds}):
        assert read_model_config(GEMMA | more).global_every == 3
    local = read_model_config(GEMMA | {"rope_local_base_freq": 77.0}).rotary.local_theta
    assert local == 77.0
    qwen = LLAMA | {"model_type": "qwen2", "sliding_window": 4, "max_window_layers": 1}
    assert read_model_config(qwen | {"use_sliding_window": False}).sliding_window == 0


REFUSED = [
    ({"model_type": "bert"}, "model_type must be one of gpt2, llama"),
    ({"model_type": None}, "model_type must be one of"),
    ({"model_type": ["llama"]}, "model_type must be one of"),
    ({"hidden_act": "swish2"}, "hidden_act must be one of silu"),
    ({"hidden_size": "12"}, "hidden_size must be a whole number from 1 to"),
    ({"hidden_size": True}, "hidden_size must be a whole number from 1 to"),
    ({"num_hidden_layers": None}, "num_hidden_layers must be a whole number"),
    ({"rms_norm_eps": "small"}, "rms_norm_eps must be a number from"),
    ({"new_idea": 1, "older_idea": 2}, "fields that this program does not know: new_idea, older_idea"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type must be one of default, linear"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor must be a number"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "more": 1}}, "does not know: rope_scaling.more"),
    ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_type longrope is not supported"),
    ({"rope_parameters": {"full_attention": {}, "a": 1}}, "does not know: rope_parameters.a"),
    ({"rope_local_base_freq": 7.0}, "does not know: rope_local_base_freq"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "does not know: layer_types"),
    ({"sliding_window": 4}, "does not know: sliding_window"),
    ({"rope_interleaved": True}, "does not know: rope_interleaved"),
    ({"tie_word_embeddings": None}, "tie_word_embeddings must be bool, got 'None'"),
    ({"model_type": "gpt2"}, "does not know: hidden_act, hidden_size, intermediate_size"),
    ({"model_type": "gemma3", "text_config": {}}, "got 'gemma3', a model of more than text; take the repos"),
    ({"model_type": "mistral", "layer_types": ["full_attention"] * 2}, "does not know: layer_types"),
    ({"model_type": "phi3", "rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type must be default in"),
    (
        {"num_attention_heads": 0},
        "num_attention_heads must be a whole number from 1 to 2,147,483,647",
    ),
    ({"num_attention_heads": 4, "num_key_value_heads": 3}, "config.json: num_heads (4) must be divisible by"),
    ({"num_hidden_layers": 2**30}, "num_hidden_layers must be at most 10,000"),
    (MIXTRAL | {"model_type": "mixtral", "num_experts_per_tok": 5}, "experts_per_token (5) must be from 1"),
    (
        MIXTRAL | {"model_type": "mixtral", "num_local_experts": 2**20},
        "experts in all layers must be at most",
    ),
    (QWEN3_MOE | {"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "mlp_only_layers must be [] here"),
    (QWEN3_MOE | {"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "decoder_sparse_step must be 1"),
    (QWEN3_MOE | {"model_type": "qwen3_moe", "use_sliding_window": True}, "use_sliding_window must be False"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a number from"),
    ({"rope_theta": -1}, "rope_theta must be a number from"),
    (GEMMA | {"rope_parameters": {"full_attention": 3}}, "rope_parameters: full_attention must be dict"),
    (GEMMA | {"rope_parameters": {"rope_theta": 500}}, "does not know: rope_parameters.rope_theta"),
    (GEMMA | {"_sliding_window_pattern": 3}, "does not know: _sliding_window_pattern"),
    (GEMMA | {"sliding_window": None}, "sliding_window must be a whole number"),
    ({"rope_parameters": [3]}, "rope_parameters must be dict"),
    ({"model_type": "qwen2", "layer_types": ["full_attention"]}, "layer_types must be 2 kinds, got 1"),
    ({"model_type": "qwen2", "layer_types": ["full_attention", "linear"]}, "must be full_attention or"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1 in this family"),
    ({"model_type": "mistral", "mlp_bias": True}, "mlp_bias must be False here"),
    ({"model_type": "qwen2", "attention_bias": True}, "attention_bias must be False here"),
    (
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        "full_attention must come every so many layers",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_the_decoder_has_not_got_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    if "query_pre_attn_scalar" not in change:
        change = LLAMA | change
    with pytest.raises(CheckpointError) as refusal:
        read_model_config(change)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def scaled(family: str, rope: dict[str, Any]) -> dict[str, Any]:
    """The example with these positions, if the family has them."""
    if family == "gpt2" or (family == "phi3" and rope["rope_type"] != "default"):
        return example(family)
    fields = {name: value for name, value in example(family).items() if name not in rope}
    return fields | {"rope_parameters": {"full_attention": rope} if "gemma3" in family else rope}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_that_is_written_reads_back_the_same(family: str) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4, "rope_theta": 9.0}
    for rope in ({"rope_type": "default"}, yarn, LLAMA3 | {"original_max_position_embeddings": 9}):
        config = read_model_config(scaled(family, rope))
        again = read_model_config(json.loads(json.dumps(write_model_config(config))))
        logits = [
            forward(init_params(jax.random.key(0), each), each, np.arange(12, dtype=np.int32)[None])[0]
            for each in (config, again)
        ]
        np.testing.assert_array_equal(*logits)


def test_a_decoder_that_no_family_has_is_refused_with_what_is_odd() -> None:
    with pytest.raises(
        CheckpointError, match="no Hugging Face or GGUF architecture has this decoder's positions"
    ):
        write_model_config(ModelConfig(vocab_size=9, qkv_bias=True, tied_head=True, head_bias=False))
    with pytest.raises(CheckpointError, match="head_bias"):
        write_model_config(dataclasses.replace(read_model_config(LLAMA), head_bias=True))


def fitting() -> tuple[Any, dict[str, np.ndarray]]:
    config = read_model_config(LLAMA)
    params = init_params(jax.random.key(0), config)
    return config, dict(export_tensors("llama", config, params))


def import_(config: Any, tensors: dict[str, np.ndarray]) -> Any:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return import_params("llama", config, shapes, tensors.__getitem__)


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_tensors_come_back_bit_by_bit(family: str) -> None:
    config = read_model_config(example(family))
    params = init_params(jax.random.key(0), config)
    tensors = dict(export_tensors(family, config, params))
    assert [part.shape for part in parts(family, config)] == [tensor.shape for tensor in tensors.values()]
    back = dict(flatten(import_params(family, config, {n: t.shape for n, t in tensors.items()}, tensors.get)))
    for path, leaf in flatten(params):
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)


def test_files_of_a_bare_model_are_understood() -> None:
    config, tensors = fitting()
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    for (path, got), (_, wanted) in zip(
        flatten(import_(config, bare)), flatten(import_(config, tensors)), strict=True
    ):
        np.testing.assert_array_equal(got, wanted, err_msg=path)


def test_tensors_that_do_not_fit_are_refused_by_name() -> None:
    config, tensors = fitting()
    name = "model.layers.1.mlp.up_proj.weight"
    for change, message in (
        ({name: tensors[name].T}, rf"{name} must have shape \(20, 12\), got \(12, 20\)"),
        ({"model.layers.2.mlp.up_proj.weight": tensors[name]}, "layers.2.mlp.up_proj.weight is not part"),
        ({"model.layers.0.self_attn.q_proj.bias": np.zeros(12)}, "q_proj.bias is not part of this family"),
    ):
        with pytest.raises(CheckpointError, match=message):
            import_(config, tensors | change)
    del tensors[name]
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        import_(config, tensors)


def test_numbers_that_are_not_finite_are_refused() -> None:
    config, tensors = fitting()
    name = "model.layers.1.mlp.up_proj.weight"
    bad = tensors[name].copy()
    bad[3, 4] = np.nan
    with pytest.raises(CheckpointError, match=f"{name} must hold finite numbers alone"):
        import_(config, tensors | {name: bad})


def test_a_head_beside_a_tied_embedding_must_be_the_same() -> None:
    config = read_model_config(LLAMA | {"tie_word_embeddings": True})
    tensors = dict(export_tensors("llama", config, init_params(jax.random.key(0), config)))
    table = tensors["model.embed_tokens.weight"]
    import_(config, tensors | {"lm_head.weight": table})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight must equal the embedding"):
        import_(config, tensors | {"lm_head.weight": table + 1})
