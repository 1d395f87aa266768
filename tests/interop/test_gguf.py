"""llama.cpp's GGUF files: what its converter did is undone to the bit, every encoding is read, and a header
that lies is refused in one line, at once and in little memory. The names are llama.cpp's own table's.
"""

import math
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llm_jax.base.errors import UserError
from llm_jax.interop.gguf.read_file import open_gguf
from tests.interop.test_sources import refusal_of

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCAB = 2, 32, 4, 2, 16, 64, 40
Kind = gguf.GGMLQuantizationType
SETTINGS: dict[str, Any] = {
    "block_count": LAYERS,
    "embedding_length": WIDTH,
    "feed_forward_length": MLP,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.key_length": HEAD_DIM,
    "attention.value_length": HEAD_DIM,
    "context_length": 512,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500000.0,
}
CONFIG: dict[str, Any] = {
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": MLP,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "vocab_size": VOCAB,
    "tie_word_embeddings": True,
}
ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma2", "gemma3"]
TOKENS = [f"<{i}>" for i in range(VOCAB)]


def hugging_face(arch: str) -> dict[str, np.ndarray]:
    """A model of this architecture by Hugging Face's names; in 1/256, so that 1 is added exactly."""
    heads, kv_heads = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (WIDTH,),
        "post_attention_layernorm.weight": (WIDTH,),
        "self_attn.q_proj.weight": (heads, WIDTH),
        "self_attn.k_proj.weight": (kv_heads, WIDTH),
        "self_attn.v_proj.weight": (kv_heads, WIDTH),
        "self_attn.o_proj.weight": (WIDTH, heads),
        "mlp.gate_proj.weight": (MLP, WIDTH),
        "mlp.up_proj.weight": (MLP, WIDTH),
        "mlp.down_proj.weight": (WIDTH, MLP),
    }
    if arch in ("qwen3", "gemma3"):
        layer |= {"self_attn.q_norm.weight": (HEAD_DIM,), "self_attn.k_norm.weight": (HEAD_DIM,)}
    if arch == "qwen2":
        layer |= {f"self_attn.{part}_proj.bias": layer[f"self_attn.{part}_proj.weight"][:1] for part in "qkv"}
    if arch in ("gemma2", "gemma3"):
        layer |= {f"{part}_feedforward_layernorm.weight": (WIDTH,) for part in ("pre", "post")}
    shapes = {"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    rng = np.random.default_rng(0)
    return {n: (rng.integers(-999, 999, s) / 256).astype(np.float32) for n, s in shapes.items()}


def converted(arch: str, name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and numbers as llama.cpp's converter gives them."""
    which = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[arch]
    stem, _, ending = name.rpartition(".")
    theirs = gguf.get_tensor_name_map(which, LAYERS).get_name(stem)
    assert theirs is not None
    if arch == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = HEADS if "q_proj" in name else KV_HEADS
        halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
        tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        tensor = tensor + np.float32(1)
    return f"{theirs}.{ending}", tensor


def write(
    path: Path,
    arch: str,
    tensors: dict[str, np.ndarray],
    settings: dict[str, Any] | None = None,
    kind: Any = Kind.F32,
    more: dict[str, np.ndarray] | None = None,
) -> Path:
    """A file by llama.cpp's own writer; matrices in the given encoding."""
    writer = gguf.GGUFWriter(path, arch)
    adders = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    adders |= {str: writer.add_string, list: writer.add_array}
    for key, value in (SETTINGS | (settings or {})).items():
        adders[type(value)](f"{arch}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.5] * VOCAB)
    writer.add_chat_template("{{ messages }}")
    named = dict(converted(arch, name, tensor) for name, tensor in tensors.items())
    for name, tensor in (named | (more or {})).items():
        matrix = tensor.ndim > 1 and kind != Kind.F32
        raw = gguf.quantize(tensor, kind) if matrix else tensor
        writer.add_tensor(name, raw, raw_dtype=kind if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_hugging_faces_names_shapes_and_bits_come_back(arch: str, tmp_path: Path) -> None:
    tensors = hugging_face(arch)
    source = open_gguf(write(tmp_path / "m.gguf", arch, tensors))
    assert source.shapes == {name: tensor.shape for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        read = source.read(name)
        assert read.dtype == np.float32
        assert np.array_equal(read, tensor), name
    assert CONFIG.items() <= source.config.items()
    assert "no tensor 'token_embd" in refusal_of(lambda: source.read("token_embd.weight"))


def test_an_output_of_its_own_and_biases_are_read(tmp_path: Path) -> None:
    tensors = hugging_face("llama") | {"lm_head.weight": np.ones((VOCAB, WIDTH), np.float32)}
    parts = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"]
    for layer in range(LAYERS):
        for part in parts:
            rows = len(tensors[f"model.layers.{layer}.{part}_proj.weight"])
            tensors[f"model.layers.{layer}.{part}_proj.bias"] = np.arange(rows, dtype=np.float32)
    source = open_gguf(write(tmp_path / "m.gguf", "llama", tensors))
    assert all(np.array_equal(source.read(name), tensor) for name, tensor in tensors.items())
    assert source.shapes.keys() == tensors.keys()
    wanted = {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}
    assert wanted.items() <= source.config.items()


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_an_encoding_gives_what_gguf_decodes(kind: str, tmp_path: Path) -> None:
    tensors = hugging_face("qwen3")
    source = open_gguf(write(tmp_path / "m.gguf", "qwen3", tensors, kind=Kind[kind]))
    for name, tensor in tensors.items():
        wanted = gguf.dequantize(gguf.quantize(tensor, Kind[kind]), Kind[kind]) if tensor.ndim > 1 else tensor
        assert np.array_equal(source.read(name), wanted), name
        assert np.abs(wanted - tensor).max() < 0.5


def test_parts_of_a_large_tensor_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_jax.interop.gguf.read_file._PART_ELEMENTS", 3 * WIDTH)
    tensors = hugging_face("llama")
    source = open_gguf(write(tmp_path / "m.gguf", "llama", tensors))
    assert all(np.array_equal(source.read(name), tensor) for name, tensor in tensors.items())


def test_the_tokenizer_is_given_out_as_it_is(tmp_path: Path) -> None:
    tokenizer = open_gguf(write(tmp_path / "m.gguf", "llama", hugging_face("llama"))).tokenizer
    assert tokenizer.pop("tokenizer.ggml.scores").tolist() == [0.5] * VOCAB
    assert tokenizer == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.chat_template": "{{ messages }}",
    }


LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
CONTEXT = "rope.scaling.original_context_length"
EXPRESSED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "linear": ("llama", LINEAR, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "yarn": (
        "qwen3",
        YARN | {CONTEXT: 128, "rope.scaling.finetuned": True},
        {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            }
        },
    ),
    "heads of each layer, all equal": (
        "llama",
        {"attention.head_count_kv": [KV_HEADS] * LAYERS, "feed_forward_length": [MLP] * LAYERS},
        {"num_key_value_heads": KV_HEADS, "intermediate_size": MLP},
    ),
    "gemma 2": (
        "gemma2",
        {"attention.sliding_window": 7, "final_logit_softcapping": 20.0},
        {
            "model_type": "gemma2",
            "sliding_window": 7,
            "layer_types": ["sliding_attention", "full_attention"],
            "final_logit_softcapping": 20.0,
            "attn_logit_softcapping": 50.0,
            "query_pre_attn_scalar": HEAD_DIM,
            "hidden_activation": "gelu_pytorch_tanh",
        },
    ),
    "gemma 3": (
        "gemma3",
        LINEAR | {"attention.sliding_window": 7},
        {
            "model_type": "gemma3_text",
            "sliding_window": 7,
            "layer_types": ["sliding_attention"] * 2,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "final_logit_softcapping": None,
        },
    ),
}


@pytest.mark.parametrize("name", EXPRESSED)
def test_settings_are_said_in_hugging_faces_words(name: str, tmp_path: Path) -> None:
    arch, settings, wanted = EXPRESSED[name]
    config = open_gguf(write(tmp_path / "m.gguf", arch, hugging_face(arch), settings)).config
    assert wanted.items() <= config.items(), {key: config.get(key) for key in wanted}


# Settings and tensors that a model of ours cannot follow -> what the refusal names.
UNKNOWN: dict[str, tuple[str, dict[str, Any], str]] = {
    "another architecture": ("phi3", {}, "general.architecture must be one of llama, "),
    "experts": ("llama", {"expert_count": 8}, "expert_count"),
    "a window": ("llama", {"attention.sliding_window": 7}, "attention.sliding_window"),
    "a scaling of another kind": ("llama", {"rope.scaling.type": "longrope"}, "rope.scaling.type"),
    "yarn from nowhere": ("qwen2", YARN, CONTEXT),
    "a part of each head": ("llama", {"rope.dimension_count": 8}, "rope.dimension_count"),
    "values of another width": ("llama", {"attention.value_length": 8}, "attention.value_length"),
    "other heads in each layer": ("llama", {"attention.head_count_kv": [1, 2]}, "attention.head_count_kv"),
    "no heads": ("llama", {"attention.head_count": 0}, "attention.head_count"),
    "heads that are a word": ("llama", {"attention.head_count": "4"}, "attention.head_count"),
    "more layers than tensors": ("llama", {"block_count": 1 << 30}, "block_count"),
    "a layer that is not there": ("llama", {"block_count": LAYERS + 1}, "blk.2.attn_q.weight is missing"),
    "a layer too many": ("llama", {"block_count": 1}, "'blk.1.attn_k.weight' has no place"),
    "another width": ("llama", {"feed_forward_length": 65}, "must have shape"),
    "an odd head": ("llama", {"attention.key_length": 15}, "must be even"),
    "an epsilon of 0": ("llama", {"attention.layer_norm_rms_epsilon": 0.0}, "rms_epsilon must be a number"),
    "a base that is no number": ("llama", {"rope.freq_base": math.nan}, "rope.freq_base must be a number"),
    "a tiny scale": ("gemma3", {"attention.scale": 1e-38}, "attention.scale must be a number"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, tmp_path: Path) -> None:
    arch, settings, named = UNKNOWN[name]
    tensors = {} if arch == "phi3" else hugging_face(arch)
    more = {"token_embd.weight": np.ones((VOCAB, WIDTH), np.float32)} if arch == "phi3" else {}
    path = write(tmp_path / "m.gguf", arch, tensors, settings, more=more)
    assert named in refusal_of(lambda: open_gguf(path))


def llama3_factors(theta: float, factor: float) -> np.ndarray:
    """How much slower each pair turns, in the words of the paper's code: by wavelengths."""
    found = []
    for i in range(HEAD_DIM // 2):
        wave = 2 * math.pi * theta ** (2 * i / HEAD_DIM)
        share = (8192 / wave - 1) / (4 - 1)
        found.append(1 if wave < 8192 / 4 else factor if wave > 8192 else 1 / ((1 - share) / factor + share))
    return np.asarray(found, np.float32)


def test_llama_3s_scaling_is_proved_from_its_factors_or_refused(tmp_path: Path) -> None:
    tensors = hugging_face("llama")
    for factor in (8.0, 32.0):
        factors = llama3_factors(500000.0, factor)
        assert len(set(factors.tolist())) > 2
        path = write(tmp_path / "m.gguf", "llama", tensors, more={"rope_freqs.weight": factors})
        assert open_gguf(path).config["rope_scaling"] == {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    good = llama3_factors(500000.0, 8.0)
    for bad in (good * 1.001, good[:-1], good + np.nan, np.full_like(good, np.inf), -good, good * 0):
        path = write(
            tmp_path / "m.gguf", "llama", tensors, more={"rope_freqs.weight": bad.astype(np.float32)}
        )
        assert "rope_freqs.weight must hold the factors" in refusal_of(lambda path=path: open_gguf(path))


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.gguf", "llama", hugging_face("llama"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r'pip install "llm-jax\[gguf\]"$'):
        open_gguf(path)
