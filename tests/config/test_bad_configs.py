"""Bad configurations: each ends with status 2 and one clear line, before any device work."""

import subprocess
import sys
from pathlib import Path

import pytest

from llm_jax.cli import command
from llm_jax.config import load, run
from llm_jax.train import train

# Command-line words -> what the line must name.
BAD_OPTIONS = [
    ("--model.d_model=30", "d_model (30) must be divisible by num_heads (4)"),
    ("--model.d_model=0", "d_model (0) must be at least 1"),
    ("--model.d_model=-64", "d_model (-64)"),
    ("--model.d_model=64.5", "whole number"),
    ("--model.d_model=1e2", "whole number"),
    ("--model.d_model=true", "whole number"),
    ("--model.d_model=wide", "whole number"),
    ("--model.d_model=", "d_model"),
    ("--model.d_model=7 --model.num_heads=7", "even for sinusoidal"),
    ("--model.num_heads=0", "num_heads (0) must be at least 1"),
    ("--model.num_heads=5", "divisible"),
    ("--model.num_layers=0", "num_layers"),
    ("--model.num_layers=-1", "num_layers"),
    ("--model.context_length=0", "context_length"),
    ("--model.vocab_size=-1", "vocab_size"),
    ("--model.spare_embedding_rows=-1", "spare_embedding_rows"),
    ("--model.d_ff=-1", "d_ff"),
    ("--model.dropout=1", "dropout (1.0) must be at least 0 and below 1"),
    ("--model.dropout=-0.1", "dropout"),
    ("--model.dropout=nan", "dropout"),
    ("--model.dropout=some", "dropout"),
    ("--model.embedding_dropout=2", "embedding_dropout"),
    ("--model.norm_eps=0", "norm_eps"),
    ("--model.norm_eps=inf", "norm_eps"),
    ("--model.positions=rotray", '"sinusoidal", "learned", "rotary"'),
    ("--model.positions=rotary --model.d_model=12 --model.num_heads=4", "even number of entries, got 3"),
    ("--model.num_kv_heads=3", "num_heads (4) must be divisible by num_kv_heads (3)"),
    ("--model.global_every=2", "global_every needs sliding_window"),
    ("--model.rotary.local_theta=5", "rotary.local_theta needs sliding_window"),
    ("--model.rotary.theta=1", "theta (1.0) must exceed 1"),
    ("--model.rotary.local_theta=0.5 --model.sliding_window=4", "local_theta (0.5) must exceed 1"),
    ("--model.rotary.fraction=0", "fraction"),
    ("--model.rotary.factor=0.5", "factor"),
    ("--model.rotary.scaling=yarn", "yarn scaling needs original_context"),
    ("--model.rotary.slow_turns=9", "fast_turns"),
    ("--model.embedding_scale=0", "embedding_scale"),
    ("--model.logit_cap=-1", "logit_cap"),
    ("--model.activation=swish", "activation"),
    ("--model.initializer=zeros", "initializer"),
    ("--model.dtype=float16", "dtype"),
    ("--model.param_dtype=int8", "param_dtype"),
    ("--model.layers=fold", "layers"),
    ("--model.attention=flash", "attention"),
    ("--model.attention=fused", "has no dropout on its weights: set dropout = 0"),
    ("--model.attention=fused --model.attention_cap=5", "has no bound on its scores: set attention_cap = 0"),
    ("--model.attention=fused", 'needs dtype = "bfloat16", got "float32"'),
    ("--model.attention=fused --model.d_head=12", "a multiple of 8 and at most 128, got 12"),
    ("--model.attention=fused --model.d_head=136", "a multiple of 8 and at most 128, got 136"),
    ("--model.qkv_bias=3", "qkv_bias"),
    ("--model.tied_head=true", "head_bias = false"),
    ("--model.tied_head=true --model.head_bias=false --model.spare_embedding_rows=1", "spare_embedding_rows"),
    ("--model.base_width=-1", "base_width (-1) must be at least 0"),
    ("--model.base_width=32", "base_width needs attention_scale"),
    (
        "--model.base_width=32 --model.attention_scale=0.25 --model.tied_head=true --model.head_bias=false",
        "base_width needs tied_head = false",
    ),
    ("--model.d_modl=64", "Did you mean --model.d_model"),
    ("--modle.d_model=64", "modle"),
    ("--d_model=64", "d_model"),
    ("--data.tokenizer=cl200k", "cl100k_base"),
    ("--data.bpe_vocab_size=256", "at least 257"),
    ("--data.validation_fraction=0", "validation_fraction"),
    ("--data.validation_fraction=1", "validation_fraction"),
    ("--data.validation_fraction=nan", "validation_fraction"),
    ("--data.compact_min_count=0", "compact_min_count"),
    ("--data.corpus=", "corpus"),
    ("--data.errors=ignore", "errors"),
    ("--data.compact_vocab=maybe", "compact_vocab"),
    ("--data.rare_ids=drop", "rare_ids"),
    ("--model.shared_ids=-1", "shared_ids"),
    ("--model.shared_ids=5", "vocab_size"),
    ("--train.eval_stride=17", "eval_stride"),
    ("--optim.learning_rate=0", "learning_rate"),
    ("--optim.learning_rate=-1", "learning_rate"),
    ("--optim.learning_rate=nan", "learning_rate"),
    ("--optim.learning_rate=inf", "learning_rate"),
    ("--optim.learning_rate=true", "learning_rate"),
    ("--optim.learning_rate", "learning_rate"),
    ("--optim.beta1=1", "beta1"),
    ("--optim.beta2=-0.5", "beta2"),
    ("--optim.eps=0", "eps"),
    ("--optim.weight_decay=-1", "weight_decay"),
    ("--optim.decay=some", "decay"),
    ("--optim.clip_norm=-1", "clip_norm"),
    ("--optim.schedule=linear", "schedule"),
    ("--optim.warmup_steps=-1", "warmup_steps"),
    ("--optim.warmup_steps=6000", "warmup_steps (6000) must not exceed steps (5000)"),
    ("--optim.decay_fraction=1.5", "decay_fraction"),
    ("--optim.final_fraction=-1", "final_fraction"),
    ("--optim.ema_decay=1", "ema_decay"),
    ("--train.steps=0", "steps"),
    ("--train.batch_size=0", "batch_size"),
    ("--train.accumulation_steps=3", "divisible by accumulation_steps (3)"),
    ("--train.accumulation_steps=0", "accumulation_steps"),
    ("--train.eval_interval=0", "eval_interval"),
    ("--train.save_interval=0", "save_interval"),
    ("--train.save_minutes=-1", "save_minutes"),
    ("--train.steps=" + "9" * 400, "below 2**31"),
    ("--train.keep=1", "keep"),
    ("--train.log_interval=0", "log_interval"),
    ("--train.seed=-1", "seed"),
    ("--train.seed=4294967296", "seed"),
    ("--train.order=sorted", "order"),
    ("--train.max_skipped=0", "max_skipped"),
    ("stray.toml", "stray.toml does not exist"),
    ("--train.steps=5 stray", "stray"),
]
# TOML text -> what the line must name.
BAD_FILES = [
    ("[model\n", "cannot be read"),
    ("[model]\nd_model = 30\n", "divisible"),
    ("[model]\nd_model = 8.5\n", "whole number"),
    ("[model]\nd_model = true\n", "whole number"),
    ("[model]\nd_model = '64 wide'\n", "whole number"),
    ("[model]\nd_modl = 64\n", "Did you mean"),
    ("model = 3\n", "[model]"),
    ("[modle]\nd_model = 64\n", "modle"),
    ("d_model = 64\n", "d_model"),
    ("[optim]\nlearning_rate = true\n", "learning_rate"),
    ("[train]\nsteps = [1, 2]\n", "steps"),
    ("[train.steps]\na = 1\n", "steps"),
    ("[data]\ntokenizer = 3\n", "tokenizer"),
]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        command.run(train, words, takes_files=True)
    out, err = capsys.readouterr()
    assert stop.value.code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(("words", "named"), BAD_OPTIONS)
def test_bad_options_end_with_status_2_and_one_line(
    words: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(words.split(" "), capsys)


@pytest.mark.parametrize(("text", "named"), BAD_FILES)
def test_bad_files_end_with_status_2_and_one_line(
    text: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert named in refusal([str(path)], capsys)


def test_all_broken_rules_of_a_section_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(["--optim.eps=0", "--optim.beta1=1", "--optim.learning_rate=-1"], capsys)
    assert all(name in line for name in ("eps (0.0)", "beta1 (1.0)", "learning_rate (-1.0)"))


@pytest.mark.parametrize("words", [["--model.d_model=30"], ["absent.toml"], ["--nonsense"]])
def test_a_process_ends_the_same_way_without_importing_jax(words: list[str]) -> None:
    spy = "import runpy, sys; sys.argv = ['train', *sys.argv[1:]]\n"
    spy += "try: runpy.run_module('llm_jax.train', run_name='__main__')\n"
    spy += "finally: print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", spy, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_later_files_win_and_options_win_over_files(tmp_path: Path) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text("[train]\nsteps = 1\nbatch_size = 8\n[model]\ndropout = 0.3\n")
    second.write_text("[train]\nsteps = 2\n")
    read = load.read_config([first, second], ["--model.dropout=0.5"])
    assert (read.train.steps, read.train.batch_size, read.model.dropout) == (2, 8, 0.5)


def test_a_configuration_survives_the_way_through_json() -> None:
    once = load.read_config([], ["--model.d_model=32", "--train.run=x/y", "--data.compact_vocab=false"])
    assert load.config_from_dict(load.to_dict(once), "json") == once
    assert load.differences(once, run.Config()) == [
        "model.d_model: 32 -> 64",
        "data.compact_vocab: False -> True",
        "train.run: x/y -> runs/tutorial",
    ]


def test_shipped_configurations_are_sound_and_tutorial_is_the_default() -> None:
    folder = Path(__file__).parents[2] / "configs"
    more = {"finetune_textbook.toml": ["--train.init_from=smollm2"]}
    read = {path.name: load.read_config([path], more.get(path.name, ())) for path in folder.glob("*.toml")}
    assert {"tutorial.toml", "tutorial_exact.toml"} <= read.keys()
    assert read["tutorial.toml"] == run.Config()
    assert read["tutorial_exact.toml"].model.vocab_size == 100070
