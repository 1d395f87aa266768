"""What is exported, beside two generations of transformers: one configuration must mean the same to both."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_jax.cli import command
from llm_jax.convert import convert
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from tests.interop.test_gguf_writing import MODELS, random_params
from tests.parity import ask_transformers
from tests.parity.ask_transformers import LONGEST, PROMPT, WINDOW, answers
from tests.parity.families import FAMILIES, reference
from tests.parity.test_families import arrays, ours, require_near
from tests.tokenization.test_conversation import CHATML
from tests.tokenization.test_file_tokenizer import byte_level

OLDER = Path(sys.prefix) / "transformers4"
NAMES = [name.replace(", ", "-").replace(" ", "-") for name in FAMILIES]


def greedy(model: torch.nn.Module) -> list[int]:
    """The likeliest next tokens, one after the other."""
    tokens = PROMPT
    for _ in range(LONGEST):
        logits = model(torch.tensor(tokens)).logits[:, -1]
        tokens = np.concatenate([tokens, logits.argmax(-1, keepdim=True).numpy()], axis=1)
    return tokens[0, PROMPT.shape[1] :].tolist()


def write(name: str, folder: Path) -> dict[str, Any]:
    """Exports a family's model with an end token that it reaches; gives what transformers said before."""
    model, config_json = reference(name, "float32")
    params, config = ours(config_json, arrays(model, folder / "theirs"), "float32")
    with torch.no_grad():
        free, logits = greedy(model), model(torch.tensor(WINDOW)).logits[0].numpy()
    end = max(free, key=free.index)  # the one that comes last for the first time
    other = next(token for token in range(211) if token not in free)
    marks = {"bos_token_id": 1, "eos_token_id": [other, end], "pad_token_id": 0}
    (folder / "out").mkdir()
    write_directory(folder / "out", write_model_config(config) | marks, config, params)
    return {"logits": logits, "made": free[: free.index(end) + 1]}


def export(folder: Path) -> Path:
    """A model with a tokenizer, imported and exported by the commands."""
    (folder / "theirs").mkdir(parents=True)
    config = read_model_config(MODELS["llama"] | {"vocab_size": 320, "max_position_embeddings": 640})
    write_directory(folder / "theirs", write_model_config(config), config, random_params(config, size=0.1))
    told = {"chat_template": CHATML, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": told}
    for name, content in (files | {"generation_config.json": {"eos_token_id": [7, 8]}}).items():
        (folder / "theirs" / name).write_text(json.dumps(content))
    ways = [["import", "theirs", "ours"], ["export", "ours", "out"]]
    for way, source, target in ways:
        more = ["--format", "huggingface"] if way == "export" else []
        with pytest.raises(SystemExit) as stop:
            command.run(convert, [way, str(folder / source), str(folder / target), *more])
        assert stop.value.code == 0
    return folder / "out"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A folder of models, asked by the older transformers in one process; and what each must answer."""
    assert OLDER.is_dir(), f"{OLDER} must hold transformers 4, which `make parity` installs"
    folder, work = tmp_path_factory.mktemp("exports"), tmp_path_factory.mktemp("work")
    wanted = {}
    for name, place in zip(FAMILIES, NAMES, strict=True):
        (work / place).mkdir()
        wanted[place] = write(name, work / place)
        (work / place / "out").rename(folder / place)
    export(work / "command").rename(folder / "command")
    environment = os.environ | {"PYTHONPATH": str(OLDER), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    program = [sys.executable, ask_transformers.__file__, str(folder)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, wanted


@cache
def newer_answers(folder: Path) -> dict[str, Any]:
    return answers(folder)


def by(generation: str, folder: Path) -> dict[str, Any]:
    """What this generation of transformers answers."""
    said = json.loads((folder / "answers.json").read_text()) if generation == "4" else newer_answers(folder)
    assert said["version"].startswith(f"{generation}.")
    return said


@pytest.mark.parametrize("generation", ["4", "5"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_and_ends_are_the_same_in_both_generations(
    exports: tuple[Path, dict[str, dict[str, Any]]], name: str, generation: str
) -> None:
    folder, wanted = exports
    said = by(generation, folder / name)
    require_near(np.array(said["logits"]), wanted[name]["logits"], 1e-5, 1e-6)
    assert said["made"] == wanted[name]["made"]
    assert len(said["made"]) < LONGEST or said["made"][-1] in said["ends"]


@pytest.mark.parametrize("generation", ["4", "5"])
def test_the_commands_exports_begin_and_end_in_both_generations(
    exports: tuple[Path, dict[str, dict[str, Any]]], generation: str
) -> None:
    said = by(generation, exports[0] / "command")
    special = {token["content"]: token["id"] for token in byte_level()["added_tokens"]}
    assert said["ends"] == [7, 8, special["<|im_end|>"]]
    assert (said["bos_token"], said["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert (said["ids"][0], said["ids"][-2]) == (special["<|im_start|>"], special["<|im_end|>"])
    assert said["ids"] == newer_answers(exports[0] / "command")["ids"]
