"""The token that stands between documents in training, where a tokenizer has one that no text makes."""

from llm_jax.tokenization.byte_pair import RankTokenizer
from llm_jax.tokenization.compact import CompactTokenizer
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.start_tokens import Named

# What it is called, the surest name first: GPT-2 and those after it, Llama 3, Llama 2 and Mistral, Gemma.
_NAMES = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


def end_of_text(tokenizer: Tokenizer) -> Named | None:
    """Return the token after which another document begins; None where the tokenizer has none."""
    ids: dict[str, int] = {}
    if isinstance(tokenizer, RankTokenizer):
        ids = tokenizer.special_tokens()
    elif isinstance(tokenizer, CompactTokenizer):
        place = {base: token for token, base in enumerate(tokenizer.base_ids.tolist())}
        special = tokenizer.base.special_tokens()
        ids = {name: place[token] for name, token in special.items() if token in place}
    elif isinstance(tokenizer, FileTokenizer):
        ids = {marker["content"]: marker["id"] for marker in tokenizer.markers()}
    return next((Named(name, ids[name]) for name in _NAMES if name in ids), None)
