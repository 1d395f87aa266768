"""The small files of public repositories' tokenizers beside one small tokenizer.json: what they declare is to
us what it is to transformers.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from llm_jax.interop.tokenizer_files import named_tokens, read_directory_tokenizer
from tests.public_configs import files
from tests.test_file_tokenizer import byte_level

NAME = "tokenizer_config.json"
CONFIGS = files(NAME)
TOKENS = ("bos", "eos", "pad", "unk")
TEXTS = ("lamps hum, it is cold", " a    b\t\tc\n\n  d", "it's 1234 <not a marker>")


def renumbered(config: dict[str, Any], first: int) -> dict[str, Any]:
    """The same declarations, with ids that follow those of a small vocabulary."""
    declared = config.get("added_tokens_decoder", {})
    return config | {
        "added_tokens_decoder": {str(first + n): each for n, each in enumerate(declared.values())}
    }


@pytest.mark.parametrize("repository", sorted(CONFIGS))
def test_what_a_public_tokenizer_config_declares_is_what_it_is_to_transformers(
    repository: str, tmp_path: Path
) -> None:
    content = byte_level() | {"added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    config = renumbered(CONFIGS[repository], len(content["model"]["vocab"]))
    (tmp_path / NAME).write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours, _ = read_directory_tokenizer(tmp_path)
    added = {token["content"]: token["id"] for token in ours.to_dict()["content"]["added_tokens"]}
    assert added == theirs.get_added_vocab()
    named = named_tokens(tmp_path)
    assert [named.get(f"{name}_token") for name in TOKENS] == [
        getattr(theirs, f"{name}_token") for name in TOKENS
    ]
    for text in TEXTS:
        assert [*ours.start_ids, *ours.encode(text).tolist()] == theirs(text).input_ids
