"""What is exported beside transformers: the tokenizer that AutoTokenizer makes of it, and its greedy text."""

import dataclasses
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llm_jax.config.decoding import SamplingConfig
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation, decoding_layout
from llm_jax.interop import export_model
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.language_model.model import LanguageModel
from llm_jax.tokenization.byte_pair import named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.tokenization.train_bpe import train_bpe
from tests.conftest import ROOT
from tests.interop.test_gguf_writing import MODELS, random_params
from tests.tokenization.test_start_tokens import byte_tokenizer

PROSE = (ROOT / "data" / "sales_handbook.txt").read_text(encoding="utf-8")[:12000]
HARD = [
    "  a  1 12 1234567 3.14159 ½ ² ١٢٣  ",
    "tabs\t\tand   spaces   \n\n  \n\r\n end  \n\n\n",
    "😀👩‍👩‍👧‍👦 ☕️ e\u0301 é \u212b 漢字カタカナ\u3000。",
    "I'M you're they'LL we'd it'S 'tis O'ſ <b>$5 + 50%</b> <i> [INST] ▁ Ġ",
    PROSE,
]


@lru_cache
def tokenizers() -> dict[str, Tokenizer]:
    bpe = train_bpe(PROSE, 600)
    return {
        "bytes": ByteTokenizer(),
        "bytes after a start": byte_tokenizer(),
        "characters": CharacterTokenizer(PROSE),
        "bpe": bpe,
        "cl100k_base": named_tokenizer("cl100k_base"),
        "compact, shared": compact(bpe, bpe.encode(PROSE[:5000]), 2, "share"),
    }


@pytest.mark.parametrize(
    ("family", "kind"), [*(("llama", kind) for kind in tokenizers()), ("gpt2", "bytes"), ("gemma3", "bpe")]
)
def test_auto_tokenizer_gives_our_ids_and_generate_our_tokens(
    family: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizers()[kind]
    rows = {"vocab_size": tokenizer.vocab_size + 3}
    config = dataclasses.replace(read_model_config(MODELS[family] | rows), context_length=96)
    model = LanguageModel(config, random_params(config), tokenizer, {})
    monkeypatch.setattr(export_model, "load", lambda *_, **__: model)
    export_model.export_huggingface(tmp_path, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in HARD:
        ids = tokenizer.encode(text).tolist()
        assert theirs(text)["input_ids"] == [*tokenizer.start_ids, *ids]
        assert theirs.decode(ids) == text == decode(tokenizer, ids)
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = model.encode_prompt("The salesperson")
    prompt = torch.tensor([ids])
    greedy = GenerationConfig(max_new_tokens=20, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        made = network.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy)
    request = Generation(max_new_tokens=20, sampling=SamplingConfig(temperature=0))
    rows = generate_tokens(decoding_layout(model.params, config), [ids], request)
    assert made[0, len(ids) :].tolist() == [int(row[0]) for row in rows]
