"""Reports in each language: the same sentences, all of them in it, and numbers that stay."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_jax.data.facts import label_facts
from llm_jax.display.words import LANGUAGES, read_words
from llm_jax.evaluation.baselines import NAMES
from llm_jax.report import report
from llm_jax.reports.run_page import RunFacts, run_page, run_pictures
from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING
from tests.reports.test_report import sections, text_of
from tests.support.commands import run_command

pytestmark = pytest.mark.compiles


def leaves(words: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, value in words.items():
        yield from leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


def test_both_languages_have_the_same_sentences_with_the_same_values() -> None:
    english, chinese = (dict(leaves(read_words("reports", language))) for language in LANGUAGES)
    assert english.keys() == chinese.keys()
    for name, text in english.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", chinese[name])), name
    kept = {name for name, text in chinese.items() if text and not re.search("[一-鿿]", text)}
    assert kept == {("join", "list"), ("comparison", "steps_of"), ("labels", "f1")}
    assert all(name[1] == text for name, text in english.items() if name[0] == "label")


def test_what_the_program_names_has_a_name_in_every_language(facts: RunFacts) -> None:
    named = {metric.label for metric in LANGUAGE_MODELLING.metrics} | set(NAMES)
    rows = [*facts.tokenizer, *facts.data, *facts.machine, *label_facts(dict.fromkeys(FACTS, 0))]
    named |= {label for label, _ in rows}
    assert named <= read_words("reports", "zh")["label"].keys()


FACTS = (
    *("tokens", "distinct_tokens", "largest_id", "bytes", "bytes_per_token", "vocab_size", "train_tokens"),
    *("validation_tokens", "validation_bytes_per_token", "validation_tokens_never_seen"),
    *("validation_in_training", "validation_overlap", "repeated_sequences"),
)


def test_a_chinese_report_has_the_sections_and_numbers_of_the_english_one(facts: RunFacts) -> None:
    pages = {language: run_page(facts, run_pictures(facts, language), language) for language in LANGUAGES}
    assert sections(pages["zh"]) == sections(pages["en"])
    assert '<html lang="zh">' in pages["zh"]
    assert re.findall(r'<td class="number">[\d.,]+', pages["zh"]) == re.findall(
        r'<td class="number">[\d.,]+', pages["en"]
    )
    shown = text_of(pages["zh"])
    assert "最终验证损失" in shown
    assert "bits per byte" not in shown
    assert "nats" not in shown


def test_a_chinese_comparison_has_a_chinese_page_and_english_pictures(
    trained: Path, idle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    run_command(report, [str(trained), str(idle), "--out", str(out), "--language", "zh"])
    assert "run is better than idle by" in capsys.readouterr().out  # the terminal is in English
    shown = text_of(out.read_text())
    assert "超过两个标准误差" in shown
    assert "nats" not in shown
