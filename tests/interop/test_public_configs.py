"""config.json and adapter_config.json of public repositories: what cannot change logits is passed over and
listed, and the rest is used, or refused by name.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.fields import passed_over
from llm_jax.interop.huggingface.read_config import FAMILIES, config_fields, read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params
from llm_jax.interop.peft.read_config import adapter_fields, read_adapter_config
from tests.interop.test_adapters import factors, write_adapter, write_base
from tests.interop.test_convert import byte_level_tokenizer, run_convert
from tests.support.public_configs import PUBLIC, REFUSED, files, shrunk

CONFIGS, ADAPTERS = files("config.json"), files("adapter_config.json")
# Fields of these files that no logit depends on and that not every file has.
ODD = {
    "HuggingFaceTB/SmolLM2-135M": ["is_llama_config", "rope_interleaved"],
    "Qwen/Qwen2.5-0.5B": ["use_mrope"],
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": ["qkv_bias", "shared_expert_intermediate_size", "use_qk_norm"],
    "microsoft/Phi-3-mini-4k-instruct": ["attention_bias", "auto_map", "rope_scaling"],
    "google/gemma-2-2b-it": ["cache_implementation", "hidden_act"],
    "google/gemma-3-270m": ["_sliding_window_pattern"],
    "unsloth/Llama-3.2-1B-Instruct": ["unsloth_fixed"],
    "distilbert/distilgpt2": ["_num_labels", "gradient_checkpointing", "id2label", "label2id"],
    "HuengchI/Atom-7B": ["max_length"],
}


def directory(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """The configuration with random weights for the decoder that it describes, and a tokenizer."""
    tensors = write_base(folder, config)
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return tensors


def test_at_least_twenty_repositories_cover_every_family_and_three_files() -> None:
    assert len(PUBLIC) >= 20
    assert {config["model_type"] for config in CONFIGS.values()} >= set(FAMILIES)
    assert all(files(f"{name}_config.json") for name in ("tokenizer", "adapter"))


@pytest.mark.parametrize("repository", sorted(CONFIGS.keys() - REFUSED.keys()))
def test_a_public_configuration_comes_in(repository: str, tmp_path: Path) -> None:
    read_model_config(CONFIGS[repository])  # with its own dimensions
    config = shrunk(CONFIGS[repository])
    tensors = write_base(tmp_path / "theirs", config)
    found, model = open_directory(tmp_path / "theirs"), read_model_config(config)
    params = import_params(config["model_type"], model, found.shapes, found.read)
    for name, tensor in export_tensors(config["model_type"], model, params):
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


@pytest.mark.parametrize("repository", REFUSED)
def test_a_public_configuration_with_more_is_refused_by_name(repository: str) -> None:
    with pytest.raises(CheckpointError) as refusal:
        read_model_config(CONFIGS[repository])
    assert REFUSED[repository] in str(refusal.value)


@pytest.mark.parametrize("repository", ODD)
def test_what_cannot_change_logits_is_listed(repository: str) -> None:
    listed = passed_over([config_fields(CONFIGS[repository])])
    names = listed.partition("config.json: ")[2].split(", ")
    used = {"rope_scaling", "attention_bias"}  # asked for, with these values
    assert set(ODD[repository]) - used <= set(names)
    assert not {"model_type", "hidden_size", "eos_token_id"} & set(names)
    assert "\n" not in listed


@pytest.mark.parametrize("repository", ADAPTERS)
def test_a_public_adapters_configuration_is_read(repository: str) -> None:
    fields = ADAPTERS[repository]
    config = read_adapter_config(fields)
    assert (config.r, config.alpha) == (fields["r"], fields["lora_alpha"])
    assert "peft_type" not in adapter_fields(fields).left()


def test_convert_lists_what_it_passed_over_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = shrunk(CONFIGS["HuggingFaceTB/SmolLM2-135M"])
    directory(tmp_path / "theirs", config)
    query = factors("model.layers.1.self_attn.q_proj", 4, 32, 64)
    adapter = write_adapter(tmp_path / "tuned", query)
    tuned = ADAPTERS["HCBlackFox/LLamaModel"]
    (adapter / "adapter_config.json").write_text(json.dumps(tuned))
    run_convert(["import", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--adapter", str(adapter)])
    first, _, second = filter(None, capsys.readouterr().out.splitlines())
    assert first.startswith("imported ")
    assert second.startswith("passed over, as logits do not depend on them: config.json: _name_or_path, ")
    assert "is_llama_config" in second
    assert "; adapter_config.json: base_model_name_or_path, enable_lora" in second


@pytest.fixture
def odd_files(tmp_path: Path) -> list[str]:
    """A directory and an adapter, each with fields that nobody knows; the words that import them."""
    config = CONFIGS["Qwen/Qwen2.5-0.5B"]
    directory(tmp_path / "theirs", shrunk(config))
    path = tmp_path / "theirs" / "config.json"
    unknown = {"new_idea": 1, "newer": {"a": 1}, "absent": None, "off": False, "empty": []}
    path.write_text(json.dumps(json.loads(path.read_text()) | unknown))
    query = factors("model.layers.1.self_attn.q_proj", 3, 32, 32)
    adapter = write_adapter(tmp_path / "tuned", query, merge_weights=True, another=None)
    return ["import", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--adapter", str(adapter)]


IGNORED = ["--ignore-field", "new_idea", "--ignore_field", "newer", "--ignore-field", "merge_weights"]


def test_unknown_fields_come_in_when_the_user_says_so(
    odd_files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_convert([*odd_files, *IGNORED])
    listed = capsys.readouterr().out.splitlines()[-1]
    for name in ("new_idea", "newer", "absent", "off", "empty", "merge_weights", "another"):
        assert name in listed.replace(";", ",").replace(":", ",").split(", "), listed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 4, "config.json has fields that this program does not know: new_idea, newer; if logits do not"),
        (IGNORED[:4], 4, "adapter_config.json has fields that this program does not know: merge_weights; "),
        (
            [*IGNORED, "--ignore-field", "hidden_size"],
            2,
            "hidden_size must be a field that is not used, but con",
        ),
        ([*IGNORED, "--ignore-field", "eos_token_id"], 2, "but config.json needs it"),
        ([*IGNORED, "--ignore-field", "lora_alpha"], 2, "but adapter_config.json needs it"),
        (
            [*IGNORED, "--ignore-field", "new_ideas"],
            2,
            "must be a field of config.json or adapter_config.json",
        ),
    ],
    ids=["none", "the adapter's", "used", "used elsewhere", "used by the adapter", "absent"],
)
def test_fields_that_are_used_or_not_there_cannot_be_ignored(
    odd_files: list[str], capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    run_convert([*odd_files, *words], status)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path(odd_files[2]).exists()


def test_a_state_dict_has_no_fields_to_ignore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_convert(["import", "x.safetensors", str(tmp_path / "ours"), "--ignore-field", "a"], 2)
    assert "must be a directory or a .gguf file for --ignore_field; leave it out" in capsys.readouterr().err
