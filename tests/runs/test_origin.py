"""Runs that start from a model: its weights to the bit, its tokenizer, and no way around."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.tree import flatten
from llm_jax.checkpoints.checksums import checksums
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import config_from_dict, to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.convert import convert
from llm_jax.data.store import prepare_store
from llm_jax.evaluate import evaluate
from llm_jax.generate import generate
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.model.decoder import init_params
from llm_jax.proofs.resume import compare_runs, short_run
from llm_jax.replay import replay
from llm_jax.report import report
from llm_jax.runs import data, init_from
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.train import train
from llm_jax.training.loop import start_state
from llm_jax.walkthrough.gather import find_subject
from tests.interop.test_families import LLAMA
from tests.support.commands import metrics_of, run_command
from tests.tokenization.test_start_tokens import START, byte_tokenizer

pytestmark = pytest.mark.compiles

CHAT = {"template": "{{ messages }}"}


def a_model(
    directory: Path, model: ModelConfig, seed: int = 3, tokenizer: Tokenizer = ByteTokenizer()
) -> Path:
    """A directory as `convert import` makes it."""
    about = {
        "config": to_dict(Config(model=model)),
        "tokenizer": tokenizer.to_dict(),
        "data_fingerprint": None,
        "versions": {},
        "chat": CHAT,
    }
    with Checkpoints(directory / "checkpoints", keep=2, about=about) as checkpoints:
        params = init_params(jax.random.key(seed), model)
        checkpoints.save(0, {"params": params}, metrics={}, score=None)
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("origin")


def a_parent(folder: Path) -> Path:
    """A Llama of bytes with four layers' worth of odd sizes, and a token before every text."""
    model = read_model_config(LLAMA | {"vocab_size": 259, "hidden_size": 24})
    model = dataclasses.replace(model, context_length=16)
    return a_model(folder / "parent", model, tokenizer=byte_tokenizer())


@pytest.fixture(scope="module")
def parent(folder: Path) -> Path:
    return a_parent(folder)


def test_a_run_starts_from_the_best_step_of_another(tmp_path: Path) -> None:
    model = ModelConfig(vocab_size=256, context_length=8, d_model=8, num_layers=1, num_heads=1)
    about = {
        "config": to_dict(Config(model=model)),
        "tokenizer": ByteTokenizer().to_dict(),
        "data_fingerprint": None,
        "versions": {},
    }
    with Checkpoints(tmp_path / "parent" / "checkpoints", keep=2, about=about) as checkpoints:
        for step, score in ((1, 2.0), (2, 3.0)):
            params = init_params(jax.random.key(step), model)
            checkpoints.save(step, {"params": params}, metrics={}, score=score)
    origin = init_from.find_origin(str(tmp_path / "parent"), tmp_path / "run")
    assert origin.step == 1
    config = Config(
        model=model,
        data=DataConfig(tokenizer="inherited", compact_vocab=False),
        train=TrainConfig(init_from=str(tmp_path / "parent"), run=tmp_path / "run"),
    )
    found = init_from.first_state(config, origin)["params"]
    for ours, best in zip(*map(jax.tree.leaves, (found, init_params(jax.random.key(1), model))), strict=True):
        np.testing.assert_array_equal(ours, best)


def words_for(folder: Path, parent: Path, prose: Path, *more: str) -> list[str]:
    steps = [
        "--train.steps=8",
        "--train.eval_interval=4",
        "--train.save_interval=4",
        "--train.log_interval=1",
    ]
    places = [f"--data.corpus={prose}", f"--data.prepared={folder / 'prepared'}"]
    run = [f"--train.run={folder / 'run'}", "--train.sample_tokens=4", "--optim.learning_rate=0.01"]
    return [f"--train.init_from={parent}", *steps, *places, *run, *more]


@pytest.fixture(scope="module")
def tuned(folder: Path, parent: Path, prose: Path) -> Path:
    run_command(train, words_for(folder, parent, prose), takes_files=True)
    return folder / "run"


def require_equal(got: Any, wanted: Any) -> None:
    others = dict(flatten(wanted))
    for path, leaf in flatten(got):
        np.testing.assert_array_equal(leaf, others[path], err_msg=path)


def config_of(run: Path) -> Config:
    return config_from_dict(read_about(run / "checkpoints")["config"], "it")


def test_a_run_begins_with_its_models_weights_to_the_bit(tuned: Path, parent: Path, tmp_path: Path) -> None:
    config = config_of(tuned)
    found = init_from.find_origin(str(parent), tmp_path / "new")
    with Checkpoints(tmp_path / "new" / "checkpoints", keep=2, about={}) as checkpoints:
        state = start_state(config, checkpoints, lambda config: init_from.first_state(config, found))
    require_equal(state["params"], llm_jax.load(parent).params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state["opt_state"]))
    saved = read_state(tmp_path / "new" / "checkpoints")
    assert checksums(saved["params"]) == checksums(state["params"])


def test_the_first_line_and_the_first_loss_are_those_of_the_model_it_starts_from(
    tuned: Path, parent: Path
) -> None:
    model = llm_jax.load(parent)
    material = data.gather(config_of(tuned), print)
    first, *others = metrics_of(tuned)
    assert first["step"] == 0
    wanted = {f"validation_{name}": value for name, value in material.evaluate(model.params).items()}
    assert {name: first[name] for name in wanted} == wanted
    assert first["validation_bits_per_byte"] > others[-2]["validation_bits_per_byte"]

    tokens, targets, *_ = material.batch_at(0)
    assert (tokens[:, 0] == START).all()
    alone = model.score(decode(model.tokenizer, material.store.tokens("validation")))
    assert first["validation_loss"] == pytest.approx(-alone.log_probs.mean(), rel=1e-5)
    assert alone.bytes == first["validation_bytes"]
    scores = np.asarray(model.logits(tokens), np.float64)
    chosen = np.take_along_axis(scores, targets[..., None], -1)[..., 0]
    nats = np.log(np.exp(scores).sum(-1)) - chosen
    assert next(line for line in others if line["step"] == 1)["train_loss"] == pytest.approx(
        nats.mean(), 1e-5
    )


def test_settings_and_tokenizer_come_with_the_model(tuned: Path, parent: Path) -> None:
    ours, theirs = llm_jax.load(tuned), llm_jax.load(parent)
    assert ours.config == theirs.config
    assert ours.tokenizer.to_dict() == theirs.tokenizer.to_dict()
    assert ours.tokenizer.start_ids == (START,)
    assert ours.about["chat"] == CHAT
    record = ours.about["initialised_from"]
    assert (record["name"], record["step"], record["part"]) == ("parent", 0, "params")
    assert len(record["digest"]) == 64
    (store,) = tuned.parent.joinpath("prepared").glob("prose-inherited-*")
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["tokenizer"] == theirs.tokenizer.to_dict()


def test_another_tokenizer_makes_another_store(tuned: Path, prose: Path) -> None:
    config = config_of(tuned)
    longer = CharacterTokenizer("abc")
    one, two = (prepare_store(config.data, print, tokenizer) for tokenizer in (ByteTokenizer(), longer))
    assert one.path != two.path
    assert two.tokenizer.vocab_size == 259


def test_the_run_stands_alone(
    tuned: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prose: Path
) -> None:
    away = parent.rename(tmp_path / "away")
    try:
        run_command(evaluate, [str(tuned)])
        run_command(generate, [str(tuned), "--prompt=The", "--max_new_tokens=4"])
        run_command(report, [str(tuned), f"--out={tmp_path / 'page.html'}"])
        run_command(replay, [str(tuned), "--step=6", "--before=1"])
        run_command(convert, ["export", str(tuned), str(tmp_path / "out"), "--format=huggingface"])
        before = (tuned / "metrics.jsonl").read_text()
        run_command(
            train, words_for(tuned.parent, parent, prose), takes_files=True
        )  # finished: nothing to do
        assert (tuned / "metrics.jsonl").read_text() == before
        capsys.readouterr()
        run_command(replay, [str(tuned), "--step=2"], status=4)
        assert "no such run" in capsys.readouterr().err
    finally:
        away.rename(parent)
    assert "before the first step" in (tmp_path / "page.html").read_text()
    run_command(convert, ["export", str(parent), str(tmp_path / "theirs"), "--format=huggingface"])
    ours, theirs = ((tmp_path / name / "config.json").read_text() for name in ("out", "theirs"))
    assert ours == theirs


def test_a_step_before_the_first_save_is_done_again_from_the_model(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(replay, [str(tuned), "--step=2"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["loss_equal"] is True


def test_a_replay_from_other_weights_than_then_is_refused(
    tuned: Path, parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = parent.rename(tmp_path / "kept")
    try:
        a_model(parent, llm_jax.load(kept).config, seed=4, tokenizer=byte_tokenizer())
        run_command(replay, [str(tuned), "--step=2"], status=4)
        assert "has others" in capsys.readouterr().err
    finally:
        shutil.rmtree(parent)
        kept.rename(parent)


def test_a_killed_run_goes_on_to_the_bit_and_not_from_the_model(
    tmp_path: Path, parent: Path, prose: Path
) -> None:
    config = Config(
        model=llm_jax.load(parent).config,
        data=DataConfig(
            corpus=str(prose), prepared=tmp_path / "prepared", tokenizer="inherited", compact_vocab=False
        ),
        optim=OptimConfig(warmup_steps=5, schedule="cosine", clip_norm=1.0, ema_decay=0.9),
        train=TrainConfig(init_from=str(parent)),
    )
    found = compare_runs(short_run(config, 24, None), tmp_path, kill_after=13)
    assert found["differing_leaves"] == found["differing_losses"] == []
    assert 12 <= found["resumed_at"] < 24
    firsts = [metrics_of(tmp_path / name)[0] for name in ("straight", "killed")]
    assert all(line.pop("elapsed_seconds") > 0 for line in firsts)
    assert firsts[0] == firsts[1]
    assert [line["step"] for line in metrics_of(tmp_path / "killed") if "validation_loss" in line] == [0, 24]


def test_the_average_is_what_a_run_with_one_passes_on(tmp_path: Path, parent: Path, prose: Path) -> None:
    words = words_for(tmp_path, parent, prose, "--optim.ema_decay=0.9")
    run_command(train, words, takes_files=True)
    found = init_from.find_origin(str(tmp_path / "run"), tmp_path / "next")
    assert found.part == "ema"
    config = config_of(tmp_path / "run")
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, init_from=str(tmp_path / "run"))
    )
    state = init_from.first_state(config, found)
    saved = read_state(tmp_path / "run" / "checkpoints")
    require_equal(state["params"], saved["ema"])
    require_equal(state["ema"], saved["ema"])


def test_a_fresh_look_at_a_configuration_that_starts_from_a_model_is_a_look_at_the_model(
    tmp_path: Path, parent: Path, prose: Path
) -> None:
    file = tmp_path / "tune.toml"
    file.write_text(
        f"[train]\ninit_from = '{parent}'\n[data]\ncorpus = '{prose}'\nprepared = '{tmp_path / 'prepared'}'\n"
    )
    require_equal(find_subject(file, print).state["params"], llm_jax.load(parent).params)
