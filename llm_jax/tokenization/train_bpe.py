"""Training a byte-pair vocabulary on a text (Sennrich et al. 2016), byte-level as in GPT-2."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from llm_jax.base.bars import shown
from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_letters import BYTE_OF_LETTER
from llm_jax.tokenization.byte_pair import RankTokenizer, trained_tokenizer
from llm_jax.tokenization.libraries import call_on_text
from llm_jax.tokenization.protocol import utf8

# Words with the space before them, numbers, punctuation, white space: no piece crosses these borders.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


_LONGEST_PIECE = 1000  # characters; training, quadratic in them, cuts what is longer, as a line of DNA may be


def train_reference(text: str, vocab_size: int) -> Tokenizer:
    """Return the vocabulary as the `tokenizers` library trains and runs it."""
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bound = pre_tokenizers.Split(Regex(f"(?m:.{{1,{_LONGEST_PIECE}}})"), behavior="isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bound, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )

    def train(text: str) -> None:
        tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)

    with shown(f"training {vocab_size:,} pieces"):
        call_on_text("train on", train, text)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    return tokenizer


def train_bpe(text: str, vocab_size: int) -> RankTokenizer:
    """Return a tokenizer with at most `vocab_size` ids (the first 256 are bytes), trained on the text and run
    by tiktoken.

    Raises:
        DataError: the text has too few different words for that many ids.
    """
    ranks = {
        bytes_of_letters(piece): rank for piece, rank in train_reference(text, vocab_size).get_vocab().items()
    }
    if len(ranks) < vocab_size:
        raise DataError(
            f"bpe_vocab_size ({vocab_size}) must be at most {len(ranks)}, "
            "which is all that this text gives; lower it"
        )
    return trained_tokenizer(ranks, PATTERN)


def bytes_of_letters(piece: str) -> bytes:
    """Return the byte-level alphabet of GPT-2 (every byte a visible character) back to bytes; a piece with
    another character, as some added words are, in UTF-8.
    """
    if all(letter in BYTE_OF_LETTER for letter in piece):
        return bytes(BYTE_OF_LETTER[letter] for letter in piece)
    return utf8(piece)
