"""What a checkpoint knows of conversations: the model's template, and the tokens that begin and end a text.

It stands in a checkpoint's `about` as "chat"; checkpoints of models that were trained here have none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_jax.base.errors import DataError

MOST_TEMPLATE = 1 << 18  # characters; the longest of the known models' templates have some 30,000
_MOST_WORD = 200  # characters of a token
_MOST_ENDS = 64
NAMED = ("bos", "eos", "pad", "unk", "sep")  # tokens that a template calls bos_token and so on


@dataclass(frozen=True)
class ChatFormat:
    """How messages become one text, and where the model's own text ends.

    Raises:
        DataError: a value is of another type, or too large for what it is.
    """

    template: str | None = None  # jinja2, as `chat_template.render` takes it
    bos: str | None = None  # what the template calls bos_token
    eos: str | None = None  # eos_token, and so on
    eos_ids: tuple[int, ...] = ()  # each of them ends what the model writes
    bos_id: int | None = None  # that generation begins with, where it is not the id of `bos`
    pad_id: int | None = None  # that fills rows of several texts, where it is not the id of `pad`
    pad: str | None = None
    unk: str | None = None
    sep: str | None = None

    def __post_init__(self) -> None:
        for name, most in (("template", MOST_TEMPLATE), *((word, _MOST_WORD) for word in NAMED)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and 0 < len(value) <= most):
                got = f"{len(value):,} characters" if isinstance(value, str) else f"{value!r:.80}"
                raise DataError(f"the chat's {name} must be a text of 1 to {most:,} characters, got {got}")
        if len(self.eos_ids) > _MOST_ENDS:
            raise DataError(f"there must be at most {_MOST_ENDS} end tokens, got {len(self.eos_ids):,}")

    def checked(self, vocab_size: int) -> "ChatFormat":
        """Return itself, if all its ids are in a vocabulary of this size; DataError otherwise."""
        marks = [token for token in (self.bos_id, self.pad_id) if token is not None]
        for token in (*self.eos_ids, *marks):
            if type(token) is not int or not 0 <= token < vocab_size:
                raise DataError(
                    f"a token that ends, begins or fills texts must be a whole number from 0 to "
                    f"{vocab_size - 1:,}, got {token!r:.80}"
                )
        return self

    def tokens(self) -> dict[str, str]:
        """Return the tokens that are known, by the names that templates have for them."""
        named = {f"{name}_token": getattr(self, name) for name in NAMED}
        return {name: token for name, token in named.items() if token is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's `about`."""
        return {**vars(self), "eos_ids": list(self.eos_ids)}


def chat_format_from_dict(values: Any, vocab_size: int) -> ChatFormat:
    """Return what `to_dict` gave; for None, the format that knows nothing.

    Raises:
        DataError: it is not such a description.
    """
    if values is None:
        return ChatFormat()
    known = ChatFormat.__dataclass_fields__.keys()
    if not isinstance(values, Mapping) or not values.keys() <= known:
        raise DataError(
            f"a checkpoint's chat must have no other fields than {', '.join(known)}, got {values!r:.80}"
        )
    ids = values.get("eos_ids", [])
    if not isinstance(ids, list):
        raise DataError(f"a checkpoint's eos_ids must be a list of ids, got {ids!r:.80}")
    return ChatFormat(**{**values, "eos_ids": tuple(ids)}).checked(vocab_size)


def read_template(path: Path) -> str:
    """Return the template in a file.

    Raises:
        DataError: it cannot be read, or is too large for a template.
    """
    try:
        if (size := path.stat().st_size) > 4 * MOST_TEMPLATE:
            raise DataError(f"{path} must have at most {4 * MOST_TEMPLATE:,} bytes, got {size:,}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} must be UTF-8") from None
