"""Tokenizers and chat templates of other people's models beside transformers, on real texts."""

import json
import random
import re
from typing import Any

import pytest
import tokenizers as library
from transformers import (
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

from llm_jax.tokenization.chat_template import render
from llm_jax.tokenization.from_gguf import gguf_tokenizer_json
from llm_jax.tokenization.from_huggingface import BYTE_PIECES, FileTokenizer
from llm_jax.tokenization.protocol import decode
from llm_jax.tokenization.train_bpe import train_reference
from tests.conftest import ROOT
from tests.support.shared_data import SharedData

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HARD = [
    "",
    "  a  1 12 1234567 3.14159 ½ ² ١٢٣  ",
    "tabs\t\tand   spaces   \n\n  \n\r\n end  \n\n\n",
    "😀👩‍👩‍👧‍👦🇩🇪 ☕️ e\u0301 é \u212b 漢字カタカナ 한국어\u3000。",
    "I'M you're they'LL we'd it'S 'tis O'x <b>$5 + 50%</b> ^~|~ `a|b`",
    "if x>=10 and\\\n\ty[i]!={'a':1}: # done\n        return _x__\n",
]


@pytest.fixture(scope="module")
def texts(shared_data: SharedData) -> list[str]:
    """Chinese, English, dialogue, code, tables, digits; and strings of signs where cutting is hard."""
    files = ["ud_chinese_gsdsimp_dev.conllu", "ud_english_ewt_dev.conllu", "instruction-data.json"]
    read = [(shared_data / name).read_text(encoding="utf-8") for name in (*files, "tinyshakespeare.txt")]
    read += [path.read_text(encoding="utf-8") for path in sorted((ROOT / "llm_jax" / "data").glob("*.py"))]
    # Text that is written like a marker is no marker for us, and one for transformers.
    read = [re.sub("|".join(map(re.escape, SPECIAL)), "", text) for text in read]
    chance = random.Random(0)
    pieces = [text[at : at + 3000] for text in read for at in (0, len(text) // 2, max(0, len(text) - 3000))]
    strings = ["".join(chance.choices("ab 1２\n\t'sST.,漢é  ", k=30)) for _ in range(300)]
    return [*HARD, *pieces, *strings]


@pytest.fixture(scope="module")
def vocabulary(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(train_reference("\n".join(texts), 1500).to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


@pytest.fixture(scope="module")
def fallback_vocabulary(texts: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """SentencePiece's way: pieces of characters, "▁" for a space, bytes for the rest."""
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = library.trainers.BpeTrainer(
        vocab_size=1500,
        limit_alphabet=300,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<s>", "</s>", *BYTE_PIECES],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def same_ids(theirs: Any, texts: list[str], *, whole: bool = True, before: str = "") -> None:
    """Our ids are theirs, text by text, and give the text back where the file keeps it ("▁" is a space)."""
    backend = getattr(theirs, "backend_tokenizer", theirs)
    ours = FileTokenizer(json.loads(backend.to_str()))
    for text in texts:
        ids = ours.encode(text).tolist()
        assert ids == backend.encode(text, add_special_tokens=False).ids, text
        if whole and text:
            assert decode(ours, ids).replace("▁", " ") == before + text.replace("▁", " ")


@pytest.mark.parametrize("kind", [GPT2Tokenizer, Qwen2Tokenizer])
def test_byte_level_files_give_the_ids_of_transformers(kind: Any, vocabulary: Any, texts: list[str]) -> None:
    theirs = kind(vocab=vocabulary[0], merges=vocabulary[1])
    theirs.add_special_tokens({"additional_special_tokens": SPECIAL})
    theirs.add_tokens(["\n\n\n", "        "])
    same_ids(theirs, texts, whole=kind is GPT2Tokenizer)  # Qwen's composes accents


def test_files_with_byte_fallback_give_the_ids_of_transformers(
    fallback_vocabulary: Any, texts: list[str]
) -> None:
    vocab, merges = fallback_vocabulary
    same_ids(GemmaTokenizer(vocab=vocab, merges=merges), texts)
    same_ids(LlamaTokenizer(vocab=vocab, merges=merges), texts, whole=False)
    legacy = LlamaTokenizer(vocab=vocab, merges=merges).backend_tokenizer
    normalizers = library.normalizers
    legacy.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    legacy.pre_tokenizer = None
    same_ids(legacy, texts, before=" ")


def metadata(vocabulary: Any, pre: str) -> dict[str, Any]:
    tokens = [*SPECIAL, *vocabulary[0], "return_x"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * len(vocabulary[0]) + [4],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in vocabulary[1]],
    }


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "llama-bpe"])
def test_a_gguf_tokenizer_gives_the_ids_of_transformers(pre: str, vocabulary: Any, texts: list[str]) -> None:
    given = metadata(vocabulary, pre)
    names = {"model": "tokenizer_type", "pre": "pre_tokenizer_type"}
    theirs, _ = convert_gguf_tokenizer(
        "llama", {names.get(key.split(".")[-1], key.split(".")[-1]): value for key, value in given.items()}
    )
    ours = FileTokenizer(gguf_tokenizer_json(given))
    for text in texts:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids, text


def test_a_gguf_tokenizer_of_smollm_cuts_digits_as_the_models_own_file(
    vocabulary: Any, texts: list[str]
) -> None:
    """transformers does not know that "smollm" cuts digits; the model's tokenizer.json says so."""
    content = gguf_tokenizer_json(metadata(vocabulary, "smollm"))
    own = library.Tokenizer.from_str(json.dumps(content))
    own.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Digits(individual_digits=True),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    ours = FileTokenizer(content)
    for text in texts:
        assert ours.encode(text).tolist() == own.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("architecture", ["phi3", "llama"])
def test_a_sentencepiece_tokenizer_of_gguf_gives_the_ids_of_transformers(
    architecture: str, fallback_vocabulary: Any, texts: list[str]
) -> None:
    """With "llama", transformers puts no space before a text that begins with one; llama.cpp always does."""
    vocab = sorted(fallback_vocabulary[0], key=fallback_vocabulary[0].get)
    kinds = [
        6 if piece in BYTE_PIECES else 3 if piece.startswith("<") and len(piece) > 2 else 1 for piece in vocab
    ]
    parts = {"tokens": vocab, "token_type": kinds, "scores": [-float(n) for n in range(len(vocab))]}
    theirs, _ = convert_gguf_tokenizer(architecture, {"tokenizer_type": "llama", **parts})
    given = {f"tokenizer.ggml.{key}": value for key, value in parts.items()}
    ours = FileTokenizer(gguf_tokenizer_json({"tokenizer.ggml.model": "llama", **given}))
    compared = [text for text in texts if architecture == "phi3" or not text.startswith((" ", "▁"))]
    assert len(compared) > 100
    for text in compared:
        assert ours.encode(text).tolist() == theirs.encode(text, add_special_tokens=False).ids, text


TEMPLATES = {
    "smollm2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, "
        "trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "chatml": """
        {%- if messages[0].role == 'system' %}
            {%- set system = messages[0].content | trim %}
            {%- set messages = messages[1:] %}
        {%- else %}
            {%- set system = none %}
        {%- endif %}
        {%- if system is not none %}{{- '<|im_start|>system\n' ~ system ~ eos_token ~ '\n' }}{% endif %}
        {% for message in messages %}
            {%- if message.role not in ['user', 'assistant'] %}
                {{- raise_exception('unknown role ' ~ message.role) }}
            {%- endif %}
            {%- generation %}{{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ eos_token ~ '\n' }}
            {%- endgeneration %}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- '<|im_start|>assistant\n' }}
        {%- endif %}""",
    "llama 3": """{{- bos_token }}
{%- set ns = namespace(turns=0) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + strftime_now("%Y") + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{% for message in messages %}
    {%- if loop.index > 7 %}
        {%- break %}
    {%- endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
    {%- if ns.turns == 2 %}{{ message | tojson }}{{ message | tojson(indent=2) }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
}
TURNS = ("Hi, <b>what's</b> 2+2?", "  4 “four” 漢字\n", "Thanks!\n\n", "", '{"a": "\\n"} & </s>')


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("system", [True, False])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_renders_as_in_transformers(name: str, system: bool, prompted: bool) -> None:
    base = library.Tokenizer(library.models.BPE({"a": 0}, []))
    theirs = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="<|im_end|>")
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": content} for n, content in enumerate(TURNS * 2)]
    if system:
        messages.insert(0, {"role": "system", "content": " Be short.\n"})
    wanted = theirs.apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompted
    )
    got = render(
        TEMPLATES[name],
        messages,
        add_generation_prompt=prompted,
        tokens={"bos_token": "<s>", "eos_token": "<|im_end|>"},
    )
    assert got == wanted
    assert "Thanks!" in got
