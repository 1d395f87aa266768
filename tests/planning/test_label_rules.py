"""What `fit` makes of labelled texts before it trains: settings, each with its rule."""

import dataclasses
from typing import Any

from llm_jax.config.lora import LoraConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.config.task import TaskConfig
from llm_jax.data.labelled import Example
from llm_jax.planning.label_rules import derive_fit
from llm_jax.tokenization.train_bpe import train_bpe

ENGLISH = [Example(["Free", " entry", f" {number}"], ["A", "B", "C"], number) for number in range(400)]
CHINESE = [Example([*"今天天气很好我们去北京"], ["B"] * 11, number) for number in range(400)]


def derived(examples: list[Example], config: Config, *given: str) -> dict[str, Any]:
    return {row.setting: row.value for row in derive_fit(config, given, examples)}


def test_letters_are_cut_into_pieces_and_chinese_into_characters() -> None:
    config = Config(task=TaskConfig(name="classification"))
    assert derived(ENGLISH, config)["data.tokenizer"] == "bpe"
    assert derived(CHINESE, config)["data.tokenizer"] == "characters"


def test_a_vocabulary_is_no_larger_than_the_words_that_there_are() -> None:
    config, letters = Config(task=TaskConfig(name="classification")), "abcdefghijklmnopqrstuvwxyz"
    words = [first + second for first in letters for second in letters]
    few, some = ([Example([word], ["A"], 1) for word in words[:count]] for count in (100, 300))
    assert derived(few, config)["data.tokenizer"] == "bytes"
    assert derived(some, config)["data.bpe_vocab_size"] == 256 + 150
    assert len(train_bpe("\n".join(words[:200]), 256 + 150).to_dict()) > 0  # what training may lack
    assert derived(ENGLISH, config)["data.bpe_vocab_size"] < 1024


def test_taggers_from_scratch_read_how_words_are_written_and_where_they_stand() -> None:
    words, characters = (TaskConfig(name="tagging", label_column=name) for name in ("upos", "segment"))
    assert derived(ENGLISH, Config(task=words))["task.factors"] == "norm,prefix,suffix,shape,window"
    assert derived(CHINESE, Config(task=characters))["task.factors"] == "window,pairs"
    assert "task.factors" not in derived(ENGLISH, Config(task=TaskConfig(name="classification")))


def test_a_model_that_was_trained_before_keeps_its_shape_and_tokenizer_and_learns_slowly() -> None:
    data = DataConfig(tokenizer="inherited", compact_vocab=False)
    config = Config(data=data, task=TaskConfig(name="tagging"), train=TrainConfig(init_from="runs/first"))
    found = derived(ENGLISH, config)
    assert not {name for name in found if name.startswith(("model.", "data.", "task."))}
    assert found["optim.learning_rate"] == 5e-5
    adapted = dataclasses.replace(config, optim=OptimConfig(lora=LoraConfig(rank=4)))
    assert derived(ENGLISH, adapted)["optim.learning_rate"] == 5e-4


def test_what_is_given_stays_and_what_follows_from_it_follows() -> None:
    config = Config(task=TaskConfig(name="tagging"), train=TrainConfig(batch_size=2, steps=33))
    found = derived(ENGLISH, config, "train.batch_size", "train.steps")
    assert (found["train.batch_size"], found["train.steps"], found["train.eval_interval"]) == (2, 33, 5)


def test_steps_grow_with_the_texts_within_bounds() -> None:
    steps = [
        derived(ENGLISH[:1] * count, Config(task=TaskConfig(name="tagging")))["train.steps"]
        for count in (10, 4_000, 8_000, 10**6)
    ]
    assert steps[0] == 200
    assert abs(steps[2] - 2 * steps[1]) <= 1
    assert steps[3] == 2000
