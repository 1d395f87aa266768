"""A setting that is given and has no effect is refused, or left out where something later made it so."""

import json
from pathlib import Path

import pytest

from llm_jax.base.errors import UserError
from llm_jax.chat import chat
from llm_jax.cli import command
from llm_jax.config import load
from llm_jax.config.decoding import DecodingConfig, SamplingConfig
from llm_jax.config.effects import ALWAYS, EFFECTS, values_of
from llm_jax.config.run import Config
from llm_jax.generate import generate
from llm_jax.prepare import prepare
from llm_jax.profile import profile
from llm_jax.proofs.resume import short_run, start
from llm_jax.train import train

ROTARY = "--model.positions=rotary"
# Words -> the setting, what makes it idle, and what to do.
IDLE = [
    ("--model.rotary.theta=5000", "model.positions = sinusoidal", "set model.positions = rotary"),
    ("--model.rotary.theta=10000", "model.positions = sinusoidal", "leave it out"),
    ("--model.rotary.fraction=0.5 --model.positions=learned", "model.positions = learned", "rotary"),
    ("--model.rotary.magnitude=2", "model.positions = sinusoidal", "rotary"),
    (f"--model.rotary.factor=2 {ROTARY}", "model.rotary.scaling = none", "linear or llama3 or yarn"),
    (f"--model.rotary.slow_turns=2 {ROTARY} --model.rotary.scaling=linear", "scaling = linear", "llama3"),
    (f"--model.rotary.round_pairs=false {ROTARY}", "scaling = none", "set model.rotary.scaling = yarn"),
    (
        f"--model.rotary.theta=5 {ROTARY} --model.sliding_window=4 --model.rotary.local_theta=9",
        "model.rotary.local_theta = 9.0 and model.sliding_window = 4 and model.global_every = 0",
        "let model.global_every leave layers without a window",
    ),
    ("--model.sliding_window=16", "model.context_length = 16", "below model.context_length"),
    ("--model.sliding_window=4 --model.global_every=1", "model.global_every = 1", "global_every = 0"),
    ("--model.global_every=9 --model.sliding_window=4", "model.num_layers = 8", "or below"),
    ("--model.experts_per_token=2", "model.num_experts = 0", "set model.num_experts above 0"),
    ("--model.router_balance=0.02", "model.num_experts = 0", "set model.num_experts above 0"),
    (
        "--model.router_normalizes=true --model.num_experts=2 --model.mlp_bias=false",
        "model.experts_per_token = 2 and model.num_experts = 2",
        "set model.experts_per_token below model.num_experts",
    ),
    ("--data.bpe_vocab_size=4096", "data.tokenizer = cl100k_base", "set data.tokenizer = bpe"),
    ("--data.rare_ids=share --data.tokenizer=bytes", "data.tokenizer = bytes", "cl100k_base"),
    ("--data.compact_vocab=true --data.tokenizer=characters", "data.tokenizer = characters", "leave it"),
    ("--data.compact_min_count=2 --data.compact_vocab=false", "data.compact_vocab = False", "= True"),
    ("--optim.decay_fraction=0.3", "optim.schedule = constant", "set optim.schedule = wsd"),
    ("--optim.decay_fraction=0.3 --optim.schedule=cosine", "optim.schedule = cosine", "= wsd"),
    ("--optim.final_fraction=0.1", "optim.schedule = constant", "set optim.schedule = cosine or wsd"),
    ("--optim.decay=matrices --optim.weight_decay=0", "optim.weight_decay = 0.0", "above 0"),
    ("--train.steps=9 --time=1m", "time = 1m", "leave out time"),
    ("--train.save_interval=9 --time=1m", "time = 1m", "leave out time"),
    ("--optim.decay_fraction=0.3 --optim.schedule=constant --time=1m", "schedule = constant", "wsd"),
    ("--data.bpe_vocab_size=300 --depth=1", "data.tokenizer = cl100k_base", "bpe"),
]
EFFECTIVE = [
    f"--model.rotary.theta=5000 --model.rotary.factor=2 --model.rotary.scaling=linear {ROTARY}",
    f"{ROTARY} --model.sliding_window=4 --model.rotary.local_theta=9 --model.global_every=4",
    # Given as what asks for nothing.
    "--model.sliding_window=0 --model.global_every=0 --model.rotary.local_theta=0",
    "--model.rotary.scaling=none --model.shared_ids=0 --data.compact_vocab=false --data.tokenizer=bytes",
    "--optim.decay_fraction=0.3 --optim.final_fraction=0.1 --optim.schedule=wsd",
    "--data.bpe_vocab_size=300 --data.tokenizer=bpe",
    "--model.router_balance=0.02 --model.num_experts=4 --model.mlp_bias=false",
]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str], function: object = train) -> str:
    with pytest.raises(SystemExit) as stop:
        command.run(function, words, takes_files=function in (train, profile))
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_every_setting_is_in_the_table_or_said_to_have_an_effect_always() -> None:
    sections = (Config(), SamplingConfig(), DecodingConfig())
    fields = {name for section in sections for name in values_of(section)}
    assert not EFFECTS.keys() & ALWAYS
    assert EFFECTS.keys() | ALWAYS == fields | {"seed"}


def test_needs_name_settings_that_there_are() -> None:
    known = EFFECTS.keys() | ALWAYS | {"time"}
    assert {s for effect in EFFECTS.values() for need in effect.needs for s in need.switches} <= known


@pytest.mark.parametrize(("words", "why", "remedy"), IDLE)
def test_a_given_setting_without_effect_is_refused(
    words: str, why: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(words.split(), capsys)
    name = words.split("=")[0].removeprefix("--")
    assert f"error: {name} has no effect with " in line
    assert why in line
    assert remedy in line


@pytest.mark.parametrize("words", EFFECTIVE)
def test_a_setting_with_an_effect_is_taken_and_so_is_one_that_asks_for_nothing(words: str) -> None:
    load.read_config([], words.split())


def test_in_a_file_too_and_all_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[optim]\ndecay_fraction = 0.2\n[data]\ntokenizer = "bytes"\nrare_ids = "spell"\n')
    for function in (train, profile):
        line = refusal([str(file)], capsys, function)
        assert "optim.decay_fraction has no effect" in line
        assert "data.rare_ids has no effect with data.tokenizer = bytes" in line
    with pytest.raises(UserError, match="rare_ids has no effect"):
        load.read_config([file])


def test_what_a_later_layer_makes_idle_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text('[optim]\nschedule = "wsd"\ndecay_fraction = 0.3\nfinal_fraction = 0.1\n')
    second.write_text('[optim]\nschedule = "cosine"\n')
    for files, words in (([first, second], []), ([first], ["--optim.schedule=cosine"])):
        config = load.read_config(files, words)
        said = capsys.readouterr().out
        assert said == "left out, as they have no effect: optim.decay_fraction (optim.schedule = cosine)\n"
        assert (config.optim.decay_fraction, config.optim.final_fraction) == (0.2, 0.1)
    second.write_text('[optim]\nschedule = "cosine"\ndecay_fraction = 0.3\n')
    with pytest.raises(UserError, match=r"optim.decay_fraction has no effect with optim.schedule = cosine"):
        load.read_config([first, second])


def test_a_fault_of_a_file_is_not_excused_by_another_switch_given_later(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[model]\npositions = "rotary"\n[model.rotary]\nfactor = 2\n')
    with pytest.raises(UserError, match=r"factor has no effect with model.rotary.scaling = none"):
        load.read_config([file], ["--model.positions=learned"])


def test_settings_whose_rules_hold_together_are_left_out_together(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    scaling = 'scaling = "yarn"\noriginal_context = 8\nslow_turns = 9\nfast_turns = 20\ntheta = 500\n'
    file.write_text(f'[model]\npositions = "rotary"\n[model.rotary]\n{scaling}')
    assert load.read_config([file], ["--model.positions=learned"]).model.rotary == Config().model.rotary


def test_stored_configurations_are_read_whatever_has_no_effect() -> None:
    old = {"optim": {"decay_fraction": 0.7}, "model": {"rotary": {"theta": 5.0}}}
    assert load.config_from_dict(old, "a checkpoint").optim.decay_fraction == 0.7


@pytest.mark.parametrize("function", [generate, chat])
@pytest.mark.parametrize("word", ["--top_k=5", "--top_p=0.5", "--min_p=0.1", "--seed=3"])
def test_greedy_decoding_refuses_what_only_a_draw_heeds(
    function: object, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(["absent", "--temperature=0", word], capsys, function)
    name = word.split("=")[0].removeprefix("--")
    assert f"{name} has no effect with temperature = 0.0: leave it out, or set temperature above 0" in line


def test_prepare_refuses_too_by_the_names_of_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["--bpe_vocab_size=300"], capsys, prepare)
    assert (
        "error: bpe_vocab_size has no effect with tokenizer = cl100k_base: leave it out, or set tok" in line
    )
    assert "given once" in refusal(["a.txt", "--corpus=b.txt"], capsys, prepare)


def test_the_proof_of_exact_resume_passes_on_what_has_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    monkeypatch.setattr("subprocess.Popen", lambda words, **_: passed.extend(words))
    config = short_run(load.read_config([], ["--train.steps=99", "--optim.schedule=cosine"]), 8, None)
    start(config)
    words = passed[passed.index("llm_jax.train") + 1 :]
    assert load.read_config([], words) == config
    assert json.dumps(words).count("rotary.theta") == 0
