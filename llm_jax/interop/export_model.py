"""How weights go out: every file that is written is read again as a stranger's and compared before it gets
its name.
"""

import dataclasses
import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.errors import CheckpointError, DataError, UserError, writing
from llm_jax.base.files import made_whole
from llm_jax.base.terminal import say
from llm_jax.checkpoints.reader import Step
from llm_jax.config.rules import require
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.gguf.write_file import plan, rounded, write_gguf
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.interop.peft.write import write_adapter
from llm_jax.interop.pytorch import tutorial
from llm_jax.interop.pytorch.state_dict import read_state_dict_file, write_state_dict_file
from llm_jax.interop.shared_rows import with_a_row_for_each_id
from llm_jax.interop.source import Source
from llm_jax.interop.verify import require_equal, shown
from llm_jax.language_model.model import LanguageModel, load
from llm_jax.tasks.by_name import find_task
from llm_jax.tasks.saved import read_saved
from llm_jax.tokenization.from_gguf import gguf_tokenizer_json
from llm_jax.tokenization.from_huggingface import FileTokenizer, read_tokenizer_file
from llm_jax.tokenization.protocol import decode
from llm_jax.tokenization.start_tokens import tokens_around
from llm_jax.tokenization.to_gguf import ENDS, composes_accents, ends_otherwise, gguf_tokenizer
from llm_jax.tokenization.to_huggingface import tokenizer_json

_PROMPT = 500  # tokens on which a written model's logits are compared


def export_tutorial(directory: Path, out: Path, step: Step = "best") -> str:
    """Write the torch tutorial's state dict as a .safetensors file; give a line for the user."""
    if out.suffix != ".safetensors":
        raise UserError(f"the file to write must end in .safetensors, got {out}")
    model = load(directory, step=step)
    state_dict = tutorial.export_state_dict(model.params, model.config)

    def check(part: Path) -> None:
        again = tutorial.import_params(read_state_dict_file(part), model.config)
        require_equal(again, model.params, part)

    write_state_dict_file(state_dict, out, check)
    return f"exported {out} (torch_tutorial); read again, every bit is equal"


def export_huggingface(directory: Path, out: Path, step: Step = "best") -> str:
    """Write the directory that transformers loads; give a line for the user.

    Raises:
        CheckpointError: no family of Hugging Face's computes what this model does.
    """
    model = with_a_row_for_each_id(load(directory, step=step))
    marks = _marks(model)
    config_json = write_model_config(model.config) | marks
    with writing(out), made_whole(out) as part:
        part.mkdir(parents=True)
        write_directory(part, config_json, model.config, model.params)
        if known := {name: token for name, token in marks.items() if token is not None}:
            _write_json(part / "generation_config.json", known)
        without = ""
        try:
            _write_tokenizer(part, model)
        except DataError as error:
            without = f" (without a tokenizer.json: {error})"
        _require_same_logits(open_directory(part), model, part, lambda _, tensor: tensor)
        if not without:
            _require_same_ids(read_tokenizer_file(part / "tokenizer.json"), model, part)
    family = config_json["model_type"]
    return f"exported {out}{without} as {family}; read again, every bit is equal, and logits agree"


def export_peft(directory: Path, out: Path, step: Step = "best") -> str:
    """Write the adapters that a run has trained as the directory that peft loads; give a line for the user.

    Raises:
        UserError: the run has no adapters, or does not continue texts.
        CheckpointError: no family of Hugging Face's computes what the model does.
    """
    saved = read_saved(directory, step, say, merge=False)
    lora, task = saved.config.optim.lora, saved.config.task
    says = f"{directory} must hold a model that writes text, and its task is {task.name}"
    require({says: find_task(task).writes_text})
    require({f"{directory} must hold a run with optim.lora.rank above 0, and has no adapters": lora.rank > 0})
    base = saved.about["initialised_from"]["name"]
    with writing(out), made_whole(out) as part:
        part.mkdir(parents=True)
        count = write_adapter(part, saved.params, saved.config.model, lora, base)
    return f"exported {out}: adapters of {count} matrices, for {base}"


def export_gguf(directory: Path, out: Path, dtype: str | None, step: Step = "best") -> str:
    """Write the file that llama.cpp runs; give a line for the user.

    Args:
        directory: a run directory, or an imported one.
        out: the file.
        dtype: of matrices: float32, float16, bfloat16 or q8_0; as the model has them without one.
        step: which checkpoint, as `load` takes it.

    Raises:
        CheckpointError: llama.cpp has no architecture that computes what this model does, or a number is too
            large for the type.
    """
    if out.suffix != ".gguf":
        raise UserError(f"the file to write must end in .gguf, got {out}")
    model = with_a_row_for_each_id(load(directory, step=step))
    config_json = write_model_config(model.config)
    stored_as = dtype or ("bfloat16" if model.config.param_dtype == "bfloat16" else "float32")
    made = plan(config_json, model.config, stored_as)
    tokenizer, remarks = _gguf_tokenizer(model)
    if odd := made.without_blocks():
        remarks.append(f"{len(odd)} matrices are float16, as q8_0 takes rows in blocks of 32: {odd[0]} ...")
    with writing(out), made_whole(out) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        tensors = export_tensors(config_json["model_type"], model.config, model.params)
        write_gguf(part, made, {"general.name": out.stem} | tokenizer, tensors, shown)
        found = open_gguf(part)
        worst = _require_same_logits(
            found, model, part, lambda name, tensor: rounded(tensor, made.stored[name])
        )
        if found.tokenizer["tokenizer.ggml.model"] != "no_vocab":
            _require_same_ids(FileTokenizer(gguf_tokenizer_json(found.tokenizer)), model, part)
    equal = "every bit is equal, and logits agree"
    if worst:
        equal = (
            f"every bit is that of the rounded weights, whose logits differ by up to {worst:.2g} from "
            "the model's"
        )
    arch = made.settings["general.architecture"]
    return "; ".join([f"exported {out} as {arch} in {stored_as}", *remarks, f"read again, {equal}"])


def _marks(model: LanguageModel) -> dict[str, int | list[int] | None]:
    """The ids with which a text begins, ends and is filled, as config.json names them; None for what is not
    known, in place of the ids that some families have for a default.
    """
    begin, fill = (_mark(model, name) for name in ("bos", "pad"))
    ends = list(model.chat_format.eos_ids)
    end = ends if len(ends) > 1 else ends[0] if ends else None
    return {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": fill}


def _mark(model: LanguageModel, name: str) -> int | None:
    chat = model.chat_format.to_dict()
    token = chat[f"{name}_id"]
    if token is None and chat.get(name) and isinstance(model.tokenizer, FileTokenizer):
        token = model.tokenizer.token_id(chat[name])
    return token if token is not None and token < model.config.vocab_size else None


def _write_tokenizer(folder: Path, model: LanguageModel) -> None:
    """tokenizer.json, and what transformers wants to be told beside it.

    Raises:
        DataError: no tokenizer.json gives the model's ids.
    """
    content, chat = tokenizer_json(model.tokenizer), model.chat_format.to_dict()
    start = tokens_around(content).start
    fields = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.context_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(start),  # for older programs; others see it in the tokenizer.json
        **{f"{name}_token": chat.get(name) for name in ("bos", "eos", "pad", "unk", "sep")},
        **({"bos_token": start[0].content} if start else {}),
        "chat_template": chat["template"],
    }
    _write_json(folder / "tokenizer.json", content, indent=None)
    _write_json(
        folder / "tokenizer_config.json",
        {name: value for name, value in fields.items() if value is not None},
    )


def _write_json(path: Path, value: Mapping[str, Any], indent: int | None = 2) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")


def _gguf_tokenizer(model: LanguageModel) -> tuple[dict[str, Any], list[str]]:
    """The settings of the tokenizer, or those of a model without one, and what the user must know of them."""
    try:
        content = tokenizer_json(model.tokenizer)
        settings = gguf_tokenizer(content, model.config.vocab_size, model.chat_format.to_dict())
    except DataError as error:
        return {"tokenizer.ggml.model": "no_vocab"}, [f"without a tokenizer: {error}"]
    remarks = []
    if composes_accents(content):
        remarks.append("llama.cpp does not compose accents (NFC), as this model's tokenizer does")
    if ends_otherwise(content):
        remarks.append("llama.cpp makes two tokens of line ends and spaces after them at the end of a text")
    if len(ends := model.chat_format.eos_ids) > len(ENDS):
        remarks.append(f"llama.cpp stops at {len(ENDS)} tokens, and this model at {len(ends)}")
    return settings, remarks


def _require_same_logits(
    found: Source, model: LanguageModel, where: Path, stored: Callable[[str, np.ndarray], np.ndarray]
) -> float:
    """Reads a written model as a stranger's: bits must be those that were stored, and logits under its own
    configuration those under ours. Gives how far these are from those of the model itself: 0 for equal bits.

    Args:
        found: what was written.
        model: what it was made of.
        where: it was written.
        stored: one of Hugging Face's tensors, by name, as it was written.
    """
    family, ours = found.config["model_type"], model.config
    exact = True
    for name, tensor in export_tensors(family, ours, model.params):
        wanted = stored(name, tensor)
        if not np.array_equal(found.read(name).astype(wanted.dtype), wanted):
            raise CheckpointError(f"{where} does not hold the bits that were written: {name} differs")
        exact = exact and np.array_equal(wanted, tensor)
    config = dataclasses.replace(
        read_model_config(found.config), param_dtype=ours.param_dtype, dtype=ours.dtype, layers=ours.layers
    )
    params = import_params(family, config, found.shapes, found.read)
    length = min(_PROMPT, ours.context_length)
    prompt = np.random.default_rng(0).integers(0, ours.vocab_size, length)
    wanted = dataclasses.replace(model, params=params).logits(prompt)
    got = dataclasses.replace(model, params=params, config=config).logits(prompt)
    if not np.allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max()):
        worst = np.abs(got - wanted).max()
        raise CheckpointError(f"{where} gives other logits than the model, by up to {worst:.2g}")
    return 0.0 if exact else float(np.abs(got - model.logits(prompt)).max())


def _require_same_ids(found: FileTokenizer, model: LanguageModel, where: Path) -> None:
    """The written tokenizer must give the ids of ours, on a text of random tokens, and before every text."""
    ids = np.random.default_rng(0).integers(0, model.tokenizer.vocab_size, _PROMPT)
    text = unicodedata.normalize("NFC", decode(model.tokenizer, ids))
    same = found.start_ids == model.tokenizer.start_ids
    if not same or not np.array_equal(found.encode(text), model.tokenizer.encode(text)):
        raise CheckpointError(f"{where} gives other tokens than the model's tokenizer")
