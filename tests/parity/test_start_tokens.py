"""The tokens before every text beside transformers, by each of its classes, whatever its files say."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from llm_jax.tokenization.from_huggingface import read_tokenizer_file
from tests.interop.test_convert import TEXTS, byte_level_tokenizer

TEMPLATE = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
PROCESSORS = {
    "none": None,
    "offsets": processors.ByteLevel(trim_offsets=False),
    "template": TEMPLATE,
    "sequence": processors.Sequence([processors.ByteLevel(trim_offsets=False), TEMPLATE]),
    "empty template": processors.TemplateProcessing(single="$A", special_tokens=[]),
    "roberta": processors.RobertaProcessing(("<|end|>", 0), ("<|end|>", 0)),
}
CLASSES = ["LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer"]
CLASSES += ["PreTrainedTokenizerFast"]


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("name", CLASSES)
def test_start_ids_are_those_of_transformers(name: str, kind: str, tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    if PROCESSORS[kind] is not None:
        tokenizer.post_processor = PROCESSORS[kind]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    ours = read_tokenizer_file(tmp_path / "tokenizer.json")
    said: list[dict[str, Any]] = [{}, {"add_bos_token": True}, {"add_bos_token": False}]
    for each in said:
        named = {
            "tokenizer_class": name,
            "bos_token": "<|end|>",
            "eos_token": "<|end|>",
            "unk_token": "<|end|>",
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(named | each))
        theirs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0]).input_ids
        bare = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0], add_special_tokens=False).input_ids
        before = theirs[: next(at for at, token in enumerate(theirs) if token != 0)]
        assert ours.start_ids == tuple(before), each
        assert theirs[: len(before) + len(bare)] == [*before, *bare]
