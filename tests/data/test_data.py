"""Laws of tokenizers, the token store and batches."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.base.errors import DataError
from llm_jax.config.run import DataConfig
from llm_jax.data import download as downloading
from llm_jax.data.batches import batch_at
from llm_jax.data.corpora import DOWNLOADS
from llm_jax.data.facts import store_facts
from llm_jax.data.store import Store, open_store, prepare_store
from llm_jax.tokenization.byte_pair import named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode, fingerprint
from llm_jax.tokenization.streaming import StreamDecoder
from llm_jax.tokenization.train_bpe import train_bpe, train_reference
from tests.support.shared_data import SharedData

SAMPLE = "The salesperson said: “it hums when it is cold.” 99 lamps!\n\tnaïve 漢字"


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    base = named_tokenizer("cl100k_base")
    return {
        "cl100k_base": base,
        "compact": compact(base, base.encode(SAMPLE), 1, "spell"),
        "compact, shared": compact(base, base.encode(SAMPLE), 1, "share"),
        "bytes": ByteTokenizer(),
        "characters": CharacterTokenizer(SAMPLE),
        "bpe": train_bpe(SAMPLE * 3, 280),
    }


KINDS = ["cl100k_base", "compact", "compact, shared", "bytes", "characters", "bpe"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_any_text_comes_back_whole_and_streamed(
    tokenizers: dict[str, Tokenizer], kind: str, text: str
) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert decode(tokenizer, ids) == text
    assert ids.size == 0 or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(int(token)) for token in ids) + stream.finish() == text


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_rebuilt_from_its_description_is_the_same(
    tokenizers: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = tokenizers[kind]
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert (again.name, again.vocab_size) == (tokenizer.name, tokenizer.vocab_size)
    assert fingerprint(again) == fingerprint(tokenizer)
    assert again.encode(SAMPLE + "é").tolist() == tokenizer.encode(SAMPLE + "é").tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_user_text_never_makes_a_special_token(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    text = "<|endoftext|><|fim_prefix|><|endofprompt|>"
    ids = tokenizers[kind].encode(text)
    assert decode(tokenizers[kind], ids) == text
    assert len(ids) > 3


def test_lone_surrogates_become_the_replacement_character(tokenizers: dict[str, Tokenizer]) -> None:
    for tokenizer in tokenizers.values():
        assert "a" in decode(tokenizer, tokenizer.encode("a\ud800b"))


def test_trained_bpe_gives_the_ids_of_the_library_that_trained_it(prose: Path) -> None:
    text = prose.read_text()
    reference = train_reference(text, 500)
    tokenizer = train_bpe(text, 500)
    assert tokenizer.vocab_size == 500
    assert tokenizer.encode(text).tolist() == reference.encode(text).ids
    other = "Wholly other text: déjà vu, 1234 — and\n\n  spaces"
    assert tokenizer.encode(other).tolist() == reference.encode(other).ids


def test_more_ids_than_a_text_can_give_are_refused() -> None:
    with pytest.raises(DataError, match="bpe_vocab_size"):
        train_bpe("abc abc", 5000)


def test_compact_vocabulary_keeps_ids_in_use_and_takes_the_rest_apart() -> None:
    base = named_tokenizer("cl100k_base")
    training = base.encode("jumping, walking, we walk and walk")
    tokenizer = compact(base, training, 1, "spell")
    assert tokenizer.vocab_size == len({*training.tolist(), *range(256)})
    assert len(tokenizer.encode("jumping, walking, we walk and walk")) == len(training)

    twice = compact(base, training, 2, "spell")
    pieces = [[twice.token_bytes(token) for token in twice.encode(text)] for text in (" walk", " walking")]
    assert pieces == [[b" walk"], [b" walk", b"ing"]]  # " walking" comes once
    assert compact(base, training[:1], 2, "spell").vocab_size == 256
    assert len(twice.encode("extraordinarily")) > len(base.encode("extraordinarily"))


def test_a_vocabulary_that_shares_puts_frequent_ids_first_and_keeps_every_other() -> None:
    base = named_tokenizer("cl100k_base")
    training = base.encode("jumping, walking, we walk and walk")
    tokenizer = compact(base, training, 2, "share")
    frequent = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size - tokenizer.shared_ids)]
    assert sorted(frequent) == [b" walk", b","]
    assert tokenizer.vocab_size == len(base.text_ids()) == 100_256
    assert len(tokenizer.encode("extraordinarily")) == len(base.encode("extraordinarily"))


def test_a_text_without_frequent_ids_cannot_be_shared() -> None:
    base = named_tokenizer("cl100k_base")
    with pytest.raises(DataError, match="compact_min_count"):
        compact(base, base.encode("all words differ here"), 2, "share")


@pytest.mark.parametrize("changed", [{"rare_ids": "drop"}, {"kept": [5]}, {"kept": [-1]}, {"kept": [10**6]}])
def test_a_damaged_description_of_a_compact_vocabulary_is_refused(changed: dict[str, object]) -> None:
    base = named_tokenizer("cl100k_base")
    sound = compact(base, base.encode(SAMPLE), 1, "spell").to_dict()
    assert tokenizer_from_dict(sound).to_dict() == sound
    with pytest.raises(DataError, match="damaged"):
        tokenizer_from_dict(sound | changed)


def test_halves_are_the_last_merge() -> None:
    base = named_tokenizer("cl100k_base")
    for token in range(256, base.vocab_size, 997):
        if piece := base.token_bytes(token):
            left, right = base.halves(token)
            assert base.token_bytes(left) + base.token_bytes(right) == piece
            assert max(left, right) < token


def a_store(tmp_path: Path, text: str | None = None, **options: object) -> Store:
    path = tmp_path / "text.txt"
    if text is not None or not path.exists():
        path.write_text(text or SAMPLE * 40, encoding="utf-8")
    return prepare_store(
        DataConfig(corpus=str(path), prepared=tmp_path / "prepared", **options), report=lambda _: None
    )


@pytest.mark.parametrize("tokenizer", ["cl100k_base", "bytes", "characters", "bpe"])
@pytest.mark.parametrize("compact_vocab", [True, False])
def test_a_store_holds_the_whole_text(tmp_path: Path, tokenizer: str, compact_vocab: bool) -> None:
    store = a_store(tmp_path, tokenizer=tokenizer, compact_vocab=compact_vocab, bpe_vocab_size=270)
    text = "".join(decode(store.tokenizer, store.tokens(split)) for split in ("train", "validation"))
    assert text == SAMPLE * 40
    total = store.num_bytes("train") + store.num_bytes("validation")
    assert total == len((SAMPLE * 40).encode())
    assert abs(store.num_bytes("validation") / total - 0.2) < 0.02


def test_a_store_is_made_once_and_other_settings_get_another(tmp_path: Path) -> None:
    first = a_store(tmp_path)
    stamp = (first.path / "train.bin").stat().st_mtime_ns
    again = a_store(tmp_path)
    assert (again.path / "train.bin").stat().st_mtime_ns == stamp
    assert again.fingerprint == first.fingerprint
    assert a_store(tmp_path, validation_fraction=0.1).path != first.path
    assert a_store(tmp_path, tokenizer="bytes").path != first.path
    assert a_store(tmp_path, text=SAMPLE * 41).path != first.path
    assert not list((tmp_path / "prepared").glob(".preparing*"))


def test_sales_textbook_has_the_tutorials_counts(shared_data: SharedData, tmp_path: Path) -> None:
    config = DataConfig(
        corpus=str(shared_data / "sales_textbook.txt"), prepared=tmp_path, validation_fraction=0.1
    )
    exact = prepare_store(
        DataConfig(corpus=config.corpus, prepared=tmp_path, validation_fraction=0.1, compact_vocab=False),
        print,
    )
    facts = store_facts(exact)
    assert (facts["tokens"], facts["distinct_tokens"], facts["largest_id"]) == (77919, 3771, 100069)
    assert (facts["train_tokens"], facts["validation_tokens"]) == (70127, 7792)
    assert facts["validation_tokens_never_seen"] == pytest.approx(348 / 7792, abs=1e-6)
    assert facts["validation_bytes_per_token"] == pytest.approx(5.77, abs=0.005)
    cut_down = store_facts(prepare_store(config, print))
    assert (cut_down["tokens"], cut_down["distinct_tokens"], cut_down["largest_id"]) == (77919, 3771, 100069)
    assert cut_down["vocab_size"] < 3771 + 256


PINNED = {"sales_textbook": "sales_textbook.txt", "the_verdict": "the-verdict.txt"}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_digests_are_those_of_the_files_at_hand(shared_data: SharedData, name: str) -> None:
    assert downloading._digest(shared_data / PINNED[name]) == DOWNLOADS[name].sha256


def test_an_opened_store_is_the_prepared_one(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    again = open_store(store.path)
    assert again.fingerprint == store.fingerprint
    assert np.array_equal(again.tokens("validation"), store.tokens("validation"))


TOKENS = np.arange(103)
ORDERS = ["random", "permutation"]


def starts(order: str, step: int, batch_size: int = 4, seed: int = 1) -> list[int]:
    batch = batch_at(TOKENS, order=order, context_length=8, batch_size=batch_size, seed=seed, step=step)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert np.array_equal(batch.targets, batch.tokens + 1)
    assert np.array_equal(batch.tokens, batch.tokens[:, :1] + np.arange(8))
    assert batch.weights.tolist() == [[1.0] * 8] * batch_size
    return batch.tokens[:, 0].tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_is_a_pure_function_of_seed_and_step(order: str) -> None:
    forwards = [starts(order, step) for step in range(30)]
    backwards = [starts(order, step) for step in reversed(range(30))]
    assert forwards == backwards[::-1]
    assert forwards != [starts(order, step, seed=2) for step in range(30)]
    assert len({tuple(row) for row in forwards}) == 30


@pytest.mark.parametrize("seed", range(5))
def test_a_permutation_visits_every_window_once_an_epoch(seed: int) -> None:
    windows = (103 - 1) // 8 - 1
    visits = [
        start for step in range(windows * 3) for start in starts("permutation", step, batch_size=1, seed=seed)
    ]
    epochs = [visits[at : at + windows] for at in range(0, len(visits), windows)]
    for epoch in epochs:
        ordered = sorted(epoch)
        assert np.diff(ordered).tolist() == [8] * (windows - 1)
        assert ordered[0] >= 0
        assert ordered[-1] + 8 < 103
    assert epochs[0] != epochs[1]


def test_a_permutation_does_not_depend_on_the_batch_size() -> None:
    one = [start for step in range(24) for start in starts("permutation", step, batch_size=1)]
    assert one == [start for step in range(6) for start in starts("permutation", step, batch_size=4)]


def test_random_crops_reach_every_position() -> None:
    seen = {start for step in range(400) for start in starts("random", step)}
    assert seen == set(range(103 - 8))


@pytest.mark.parametrize("order", ORDERS)
def test_the_shortest_usable_split_gives_batches_and_a_shorter_one_an_error(order: str) -> None:
    batch = batch_at(np.arange(9), order=order, context_length=8, batch_size=3, seed=0, step=5)
    assert batch.tokens[:, 0].tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="more than context_length"):
        batch_at(np.arange(8), order=order, context_length=8, batch_size=3, seed=0, step=5)
