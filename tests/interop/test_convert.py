"""Open models through the command: directories and GGUF files in, directories out, mistakes in one line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import jax
import numpy as np
import pytest
import tokenizers

import llm_jax
from llm_jax.base.tree import Tree, flatten
from llm_jax.cli import command
from llm_jax.convert import convert
from llm_jax.interop import import_model
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.model.decoder import init_params
from tests.interop.test_families import LLAMA
from tests.interop.test_gguf_writing import MODELS, random_params

TEXTS = ["the cat sat on the mat", "a cat, a hat and a bat"]


def run_convert(words: list[str], status: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(convert, words)
    assert stop.value.code == status


def byte_level_tokenizer() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


@pytest.fixture(scope="module")
def model() -> tuple[dict[str, Any], Tree]:
    config_json = LLAMA | {"vocab_size": 272, "hidden_size": 24}
    return config_json, init_params(jax.random.key(0), read_model_config(config_json))


@pytest.fixture
def directory(tmp_path: Path, model: tuple[dict[str, Any], Tree]) -> Path:
    config_json, params = model
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_directory(folder, config_json, read_model_config(config_json), params, shard_bytes=9_000)
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def require_equal(got: Tree, wanted: Tree) -> None:
    others = dict(flatten(wanted))
    for path, leaf in flatten(got):
        np.testing.assert_array_equal(leaf, others[path], err_msg=path)


def test_a_directory_comes_in_generates_and_goes_out_again(
    directory: Path, tmp_path: Path, model: tuple[dict[str, Any], Tree]
) -> None:
    assert len(list(directory.glob("model-*-of-*.safetensors"))) > 1
    run_convert(["import", str(directory), str(tmp_path / "ours")])
    ours = llm_jax.load(tmp_path / "ours")
    require_equal(ours.params, model[1])
    assert ours.tokenizer.encode(TEXTS[0]).tolist() == byte_level_tokenizer().encode(TEXTS[0]).ids
    assert ours.config.dropout == 0
    text = ours.generate("the cat", max_new_tokens=5, seed=1)
    run_convert(["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--format", "huggingface"])
    run_convert(["import", str(tmp_path / "out"), str(tmp_path / "again")])
    again = llm_jax.load(tmp_path / "again")
    require_equal(again.params, model[1])
    assert again.generate("the cat", max_new_tokens=5, seed=1) == text


def test_weights_can_be_stored_as_bfloat16(directory: Path, tmp_path: Path) -> None:
    run_convert(["import", str(directory), str(tmp_path / "ours"), "--param_dtype", "bfloat16"])
    params = llm_jax.load(tmp_path / "ours").params
    assert {str(leaf.dtype) for _, leaf in flatten(params)} == {"bfloat16"}
    run_convert(["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--format", "huggingface"])
    sizes = [file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")]
    assert sum(sizes) < 1.2 * sum(2 * leaf.size for _, leaf in flatten(params))


def test_what_was_written_is_held_against_the_source(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(out: Path) -> llm_jax.LanguageModel:
        found = llm_jax.load(out)
        scale = found.params["final_norm"]["scale"]
        other = found.params | {"final_norm": {"scale": scale.at[-1].set(np.nextafter(scale[-1], 9))}}
        return dataclasses.replace(found, params=other)

    monkeypatch.setattr(import_model, "load", damaged)
    run_convert(["import", str(directory), str(tmp_path / "ours")], status=4)
    assert "differs from model.norm.weight" in capsys.readouterr().err


def test_imported_weights_are_saved_from_where_they_lie(
    directory: Path, model: tuple[dict[str, Any], Tree]
) -> None:
    found = open_directory(directory)
    params = import_params("llama", read_model_config(model[0]), found.shapes, found.read)
    for path, leaf in flatten(params):
        assert jax.device_put(leaf).unsafe_buffer_pointer() == leaf.ctypes.data, path


def write_gguf(path: Path, config_json: dict[str, Any], params: Tree) -> None:
    config = read_model_config(config_json)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rotary.theta)
    vocabulary = json.loads(byte_level_tokenizer().to_str())["model"]
    pieces = sorted(vocabulary["vocab"], key=vocabulary["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*pieces, "<unused-1>", "<unused-2>"])
    writer.add_token_types([3, *[1] * (len(pieces) - 1), 5, 5])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    for name, tensor in export_tensors("llama", config, params):
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        heads = {"q": config.num_heads, "k": config.kv_heads}.get(name[-len("q_proj.weight")])
        if heads:  # llama.cpp turns neighbours
            halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
            tensor = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)
        writer.add_tensor(theirs, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_comes_in_with_its_tokenizer(tmp_path: Path, model: tuple[dict[str, Any], Tree]) -> None:
    write_gguf(tmp_path / "model.gguf", *model)
    run_convert(["import", str(tmp_path / "model.gguf"), str(tmp_path / "ours")])
    ours = llm_jax.load(tmp_path / "ours")
    require_equal(ours.params, model[1])
    assert ours.tokenizer.encode(TEXTS[1]).tolist() == byte_level_tokenizer().encode(TEXTS[1]).ids


def test_a_tokenizer_can_be_given_where_a_models_own_is_missing_or_unknown(
    tmp_path: Path,
    directory: Path,
    model: tuple[dict[str, Any], Tree],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (directory / "tokenizer.json").rename(other / "tokenizer.json")
    small = {"chat_template": "{{ messages[0].content }}<|end|>", "eos_token": "<|end|>"}
    (other / "tokenizer_config.json").write_text(json.dumps(small))
    monkeypatch.setattr(gguf.GGUFWriter, "add_tokenizer_pre", lambda self, pre: self.add_string("x.pre", pre))
    write_gguf(tmp_path / "no_pre.gguf", *model)
    made = []
    for source in (directory, tmp_path / "no_pre.gguf"):
        for given in (other, other / "tokenizer.json"):
            out = tmp_path / f"{source.name}-{given.name}"
            run_convert(["import", str(source), str(out), "--tokenizer", str(given)])
            made.append(llm_jax.load(out))
    assert "warning" not in capsys.readouterr().err
    wanted = byte_level_tokenizer().encode(TEXTS[1]).ids
    assert [ours.tokenizer.encode(TEXTS[1]).tolist() for ours in made] == [wanted] * 4
    assert [ours.chat_format.template for ours in made] == [small["chat_template"], None] * 2
    assert (made[0].chat_format.eos, made[0].chat_format.eos_ids, made[1].chat_format.eos) == (
        "<|end|>",
        (0,),
        None,
    )
    run_convert(["import", str(tmp_path / "no_pre.gguf"), str(tmp_path / "alone")])
    assert "warning: tokenizer.ggml.pre is missing" in capsys.readouterr().err
    content = json.loads((other / "tokenizer.json").read_text())
    content["added_tokens"] = []
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    run_convert(["import", str(tmp_path / "no_pre.gguf"), str(tmp_path / "o"), "--tokenizer", str(other)], 3)
    assert "must be the GGUF file's, but its id" in capsys.readouterr().err


def test_a_state_dict_takes_a_tokenizers_name_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", str(tmp_path / "weights.pt"), str(tmp_path / "out"), "--tokenizer", str(tmp_path)]
    run_convert(words, 2)
    assert (
        "for a state dict must be one of cl100k_base, gpt2, o200k_base, bytes; got" in capsys.readouterr().err
    )


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def other_field(folder: Path) -> None:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"new_idea": 1}))


@pytest.mark.parametrize(
    ("change", "words", "status", "message"),
    [
        (no_tokenizer, [], 3, "a tokenizer.json must be there"),
        (other_field, [], 4, "fields that this program does not know: new_idea"),
        (
            None,
            ["--tokenizer", "bytes"],
            2,
            "must bring its own tokenizer or be given one's directory or file",
        ),
        (None, ["--param_dtype", "float16"], 2, "param_dtype"),
    ],
    ids=["tokenizer", "field", "option", "type"],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None] | None,
    words: list[str],
    status: int,
    message: str,
) -> None:
    if change is not None:
        change(directory)
    run_convert(["import", str(directory), str(tmp_path / "ours"), *words], status)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_an_import_that_was_stopped_is_done_again_under_its_name(tmp_path: Path) -> None:
    theirs, config = tmp_path / "theirs", read_model_config(MODELS["llama"])
    theirs.mkdir()
    write_directory(theirs, write_model_config(config), config, random_params(config, size=0.1))
    byte_level_tokenizer().save(str(theirs / "tokenizer.json"))
    (tmp_path / "ours" / "checkpoints" / "0.tmp").mkdir(parents=True)  # as a kill leaves it
    run_convert(["import", str(theirs), str(tmp_path / "ours")])
    assert llm_jax.load(tmp_path / "ours").config == config
    run_convert(["import", str(theirs), str(tmp_path / "ours")], status=2)
