"""Text from tokens as they arrive, whole characters only."""

import codecs

from llm_jax.tokenization.protocol import Tokenizer


class StreamDecoder:
    """Holds back the bytes of an unfinished character; all pieces joined equal `decode` of all ids."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Return the characters that this token completes."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def finish(self) -> str:
        """Return U+FFFD for bytes that never became a character, else nothing."""
        return self._decoder.decode(b"", final=True)
