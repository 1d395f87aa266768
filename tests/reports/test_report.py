"""Reports of runs: their own numbers in every section, nothing fetched, and what a comparison is worth."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import llm_jax
from llm_jax.base.tree import flatten
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config
from llm_jax.display.words import read_words
from llm_jax.report import report
from llm_jax.reports import gather
from llm_jax.reports.curves import series
from llm_jax.reports.gather import leave_report
from llm_jax.reports.run_page import RunFacts, differs, duration, run_page, run_pictures
from llm_jax.runs import data
from llm_jax.runs.observer import Around
from llm_jax.tasks.language_modelling import held_out, target_nats
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.checkpoints import flip_a_bit
from tests.support.commands import metrics_of, run_command
from tests.support.observing import an_observer

pytestmark = pytest.mark.compiles

WORDS = read_words("reports", "en")
SECTIONS = {
    "loss",
    "optimisation",
    "speed",
    "samples",
    "surprisal",
    "data",
    "checkpoints",
    "again",
    "memorisation",
}
PICTURES = {
    *("loss", "learning_rate", "grad_norm", "update_norm"),
    *("grad_norms", "update_norms", "tokens_per_second", "mfu"),
}


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "copy"))


def sections(page: str) -> set[str]:
    return set(re.findall(r'<section id="(\w+)"', page))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL).split())


def test_train_leaves_its_report_and_names_it(trained: Path, finished: tuple[str, str]) -> None:
    printed, page = finished
    summary = json.loads(printed.splitlines()[-1])
    assert summary["report"] == str(trained / "report.html")
    assert "warning" not in printed
    assert sections(page) == SECTIONS
    assert f"{summary['validation_loss']:.4f}" in page
    assert duration(summary["seconds"], WORDS) in page
    assert page.count('<svg role="img"') == len(PICTURES)


def test_a_report_that_cannot_be_written_is_a_warning(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = llm_jax.load(trained)
    material = data.gather_again(model.about, "it", print)
    obstacle = trained / "report.html"
    nothing: Any = SimpleNamespace()
    page = obstacle.read_bytes()
    obstacle.unlink()
    obstacle.mkdir()
    try:
        around = Around(nothing, nothing, leave_report, str, None)
        assert an_observer(material, around)._leave_report(model.params) is None
    finally:
        obstacle.rmdir()
        obstacle.write_bytes(page)
    assert "report.html cannot be written: Is a directory; the run goes on" in capsys.readouterr().err


@pytest.mark.parametrize("compared", [False, True])
def test_a_page_needs_nothing_beside_it(trained: Path, idle: Path, tmp_path: Path, compared: bool) -> None:
    runs = [str(trained), str(idle)] if compared else [str(trained)]
    run_command(report, [*runs, "--out", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    namespaces = r'xmlns(:xlink)?="http://www.w3.org/(2000/svg|1999/xlink)"'
    assert "http" not in re.sub(namespaces, "", page)
    links = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in page


def test_numbers_on_the_page_are_those_of_the_record(trained: Path, facts: RunFacts) -> None:
    page = text_of(run_page(facts, run_pictures(facts)))
    entries = metrics_of(trained)
    last = [entry for entry in entries if "validation_loss" in entry][-1]
    (seconds,) = [entry["seconds"] for entry in entries if "seconds" in entry]
    assert f"final validation loss {last['validation_loss']:.4f}" in page
    assert f"± {last['validation_standard_error']:.3f} nats per token" in page
    assert f"final bits per byte {last['validation_bits_per_byte']:.4f}" in page
    assert f"wall time {duration(seconds, WORDS)}" in page
    for name, nats in facts.baselines.items():
        assert f"{name} {nats:.4f}" in page
    assert "steps 12" in page
    for step, text in facts.samples:
        assert f"step {step}" in page
        assert " ".join(text.split()[:4]) in page
    for key in ("train_loss", "learning_rate", "grad_norm", "tokens_per_second"):
        steps, values = series(facts.entries, key)
        wanted = {entry["step"]: entry[key] for entry in entries if entry.get(key) is not None}
        assert dict(zip(steps.tolist(), values.tolist(), strict=True)) == wanted


def test_surprisal_is_the_loss_of_the_first_targets(trained: Path, facts: RunFacts) -> None:
    model = llm_jax.load(trained)
    material = data.gather_again(model.about, "it", print)
    whole = target_nats(model.params, material.config, material.store, held_out(material.store))
    np.testing.assert_allclose([nats for _, nats in facts.passage], whole[:200], rtol=1e-5)
    assert "".join(text for text, _ in facts.passage[:20]) in Path(material.config.data.corpus).read_text()


def test_settings_and_command_say_how_to_make_the_run_again(facts: RunFacts) -> None:
    page = text_of(run_page(facts, []))
    changed, whole = page.split(f"All {len(facts.settings)} settings")
    assert "optim.learning_rate 0.001 0.01" in changed
    assert "model.vocab_size" not in changed  # It follows from the tokenizer and was not asked for.
    names = [path.replace("/", ".") for path, _ in flatten(to_dict(Config()))]
    assert [each.name for each in facts.settings] == names
    assert all(f"{each.name} {each.value}" in whole for each in facts.settings if each.value.strip())
    marked = re.findall(r'<tr class="marked"><td class="mono">([\w.]+)', run_page(facts, []))
    assert marked == [each.name for each in facts.settings if differs(each)]
    assert "optim.learning_rate" in marked
    assert "train.run" not in marked
    assert gather._command(["/a/llm_jax/train.py", "--train.run", "my run"]) == (
        "llm-jax train --train.run 'my run'"
    )


def test_text_from_outside_is_escaped(facts: RunFacts) -> None:
    page = run_page(facts._replace(samples=[(1, "<script>alert(1)</script>")]), [])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_run_whose_name_is_no_text_has_a_page_all_the_same(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / AWKWARD_NAMES["bytes that are no text"]))
    run_command(report, [str(run)])
    assert r"a\udcffb" in (run / "report.html").read_text(encoding="utf-8")


def test_memorisation_is_shown_where_it_was_measured(facts: RunFacts) -> None:
    assert "memorisation" not in sections(run_page(facts._replace(memorisation=[]), []))
    page = run_page(facts._replace(memorisation=[(500, 17, 90, "a copied sentence")]), [])
    assert "500 17 90 a copied sentence" in text_of(page)


def test_a_damaged_checkpoint_is_shown_as_damaged(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    flip_a_bit(run / "checkpoints" / "8")
    run_command(report, [str(run)])
    assert last_json(capsys)["damaged_checkpoints"] == [8]
    page = text_of((run / "report.html").read_text())
    assert re.search(r"8 not evaluated damaged : \w+", page)
    assert re.search(r"12 [\d.]+ intact", page)
    assert "damaged checkpoints 1" in page


def test_without_any_sound_checkpoint_the_page_says_what_is_missing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained, tmp_path)
    for step in (run / "checkpoints").iterdir():
        flip_a_bit(step)
    run_command(report, [str(run)])
    assert "left out: what needs the model" in capsys.readouterr().out
    assert sections((run / "report.html").read_text()) == SECTIONS - {"surprisal", "data", "memorisation"}


def test_an_old_or_bare_run_gives_a_page_without_what_it_lacks(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    lines = metrics_of(run)
    for line in lines:
        for name in ("grad_norms", "update_norms", "learning_rate", "seconds", "elapsed_seconds"):
            line.pop(name, None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = gather.gather_facts(run, gather.open_run(run, print))
    without = {"grad_norms", "update_norms", "learning_rate"}
    assert {picture.name for picture in run_pictures(facts)} == PICTURES - without
    assert "wall time" not in run_page(facts, [])
    for name in ("metrics.jsonl", "samples.jsonl", "environment.json"):
        (run / name).unlink()
    run_command(report, [str(run)])
    missing = {"loss", "optimisation", "speed", "samples"}
    assert sections((run / "report.html").read_text()) == SECTIONS - missing - {"memorisation"}


def test_a_run_whose_text_and_tokens_are_gone_gives_a_page_without_them(
    trained: Path, folder: Path, prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, stores = prose.read_text(), (folder / "prepared").rename(folder / "elsewhere")
    prose.unlink()
    try:
        run_command(report, [str(trained), "--out", str(tmp_path / "page.html")])
    finally:
        prose.write_text(text)
        stores.rename(folder / "prepared")
    assert "left out: what needs the text" in capsys.readouterr().out
    assert sections((tmp_path / "page.html").read_text()) == SECTIONS - {"surprisal", "memorisation"}


def test_pictures_are_also_written_as_png(trained: Path, tmp_path: Path) -> None:
    run_command(
        report, [str(trained), "--out", str(tmp_path / "p.html"), "--png", str(tmp_path / "deep" / "png")]
    )
    found = {path.stem: path.read_bytes()[:8] for path in (tmp_path / "deep" / "png").iterdir()}
    assert found == dict.fromkeys(PICTURES, b"\x89PNG\r\n\x1a\n")


BAD_REQUESTS = [
    ([], 2, "needs a run directory"),
    (["{tmp}/nowhere"], 4, "must be a run directory"),
    (["{run}", "{tmp}/nowhere"], 4, "must be a run directory"),
    (["{run}", "--out", "{tmp}/no/folder.html"], 2, "cannot be written"),
    (["{run}", "--png", "{run}/config.json"], 2, "cannot be made"),
]


@pytest.mark.parametrize(("words", "status", "named"), BAD_REQUESTS)
def test_what_cannot_be_reported_is_one_line(
    trained: Path,
    tmp_path: Path,
    words: list[str],
    status: int,
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_command(report, [word.format(tmp=tmp_path, run=trained) for word in words], status=status)
    errors = capsys.readouterr().err
    assert named in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_memorisation_of_a_run_is_the_overlap_of_its_samples_with_its_training_text(
    trained: Path, facts: RunFacts
) -> None:
    material = data.gather_again(llm_jax.load(trained).about, "it", print)
    tokens = list(map(int, material.store.tokens("train")))
    assert [step for step, *_ in facts.memorisation] == [step for step, _ in facts.samples]
    for (_, overlap, size, copied), (_, text) in zip(facts.memorisation, facts.samples, strict=True):
        assert copied in text
        ids = material.store.tokenizer.encode(text).tolist()
        windows = {tuple(tokens[at : at + overlap]) for at in range(len(tokens))}
        assert len(ids) == size
        assert any(tuple(ids[at : at + overlap]) in windows for at in range(size))
        longer = {tuple(tokens[at : at + overlap + 1]) for at in range(len(tokens) - overlap)}
        assert not any(tuple(ids[at : at + overlap + 1]) in longer for at in range(size - overlap))
