"""The walkthrough: every stage with its exact shape, our own lines, every sentence in both languages."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.cli import command
from llm_jax.display.words import LANGUAGES, read_words
from llm_jax.explain import explain
from llm_jax.model.layers import Block
from llm_jax.walkthrough.gather import find_subject, make_lesson, next_batch
from llm_jax.walkthrough.lesson import movements
from llm_jax.walkthrough.source import statement

pytestmark = pytest.mark.compiles

EXACT = """
[data]
compact_vocab = false
prepared = "{prepared}"
[model]
vocab_size = 100070
num_layers = {layers}
"""
# Stage -> shapes, from the torch tutorial; its text here is the handbook.
SHAPES = {
    "whole_text": ["35275"],
    "batch": ["4,16", "4,16"],
    "table": ["100070,64"],
    "embedded": ["4,16,64", "4,16,64"],
    "positions": ["16,64", "4,16,64"],
    "input": ["4,16,64"],
    "attention_norm": ["4,16,64"],
    "projections": ["4,16,64"] * 3,
    "split": ["4,16,4,16"] * 3,
    "heads_first": ["4,4,16,16"] * 3,
    "scores": ["4,4,16,16"],
    "mask": ["16,16", "4,4,16,16"],
    "softmax": ["4,4,16,16"],
    "mixed": ["4,4,16,16"],
    "joined": ["4,16,64"],
    "projection": ["4,16,64"],
    "residual": ["4,16,64"],
    "mlp": ["4,16,256", "4,16,64"],
    "final_norm": ["4,16,64"],
    "logits": ["4,16,100070"],
    "loss": [""],
}
# Words of a Chinese page that stay as they are: names of code, of libraries and of methods.
NAMES = {
    "torch",
    "nn",
    "Embedding",
    "LayerNorm",
    "Sequential",
    "einsum",
    "softmax",
    "Softmax",
    "MLP",
    "ReLU",
    "AdamW",
}
NAMES |= {"dropout", "cross", "entropy", "tiktoken", "Logits", "llm", "jax", "Wq", "Wk", "Wv", "Wo", "xNN"}


def run_explain(words: list[str], status: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(explain, words)
    assert stop.value.code == status


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The exact tutorial, untrained, in both languages (with two blocks instead of eight)."""
    folder, found = tmp_path_factory.mktemp("explain"), {}
    (folder / "exact.toml").write_text(EXACT.format(prepared=folder / "prepared", layers=2))
    for language in LANGUAGES:
        out = folder / f"{language}.html"
        run_explain([str(folder / "exact.toml"), "--language", language, "--out", str(out)])
        found[language] = out.read_text(encoding="utf-8")
    return found


def test_every_stage_of_the_tutorial_is_there_with_its_shape(pages: dict[str, str]) -> None:
    shapes: dict[str, list[str]] = {}
    for stage, shape in re.findall(
        r'data-stage="(\w+)" data-view="[^"]*" data-shape="([\d,]*)"', pages["en"]
    ):
        shapes.setdefault(stage, []).append(shape)
    assert shapes == SHAPES
    assert list(shapes) == list(SHAPES)


def test_rotary_positions_and_normed_heads_are_told_as_what_they_are(tmp_path: Path) -> None:
    out, config = tmp_path / "modern.html", tmp_path / "modern.toml"
    switches = 'positions = "rotary"\nactivation = "relu_squared"\nqk_norm = "head"\nnum_layers = 2\n'
    config.write_text(f'[data]\nprepared = "{tmp_path}"\n[model]\n{switches}')
    run_explain([str(config), "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    found = re.findall(r'data-stage="(\w+)" data-view="([^"]*)" data-shape="([\d,]*)"', page)
    assert [shape for shape in found if shape[0] == "rotation"] == [
        ("rotation", "cos", "4,16,8"),
        ("rotation", "sin", "4,16,8"),
    ]
    assert not {"positions", "input"} & {stage for stage, _, _ in found}
    assert "_norm_heads(&#34;query_norm&#34;" in page
    assert "rotate(x, attention_pattern.turn)" in page


def test_a_step_at_the_end_of_a_schedule_still_shows_what_moves(tmp_path: Path) -> None:
    (tmp_path / "end.toml").write_text(
        f'[data]\nprepared = "{tmp_path}"\n[model]\nnum_layers = 1\n'
        '[optim]\nschedule = "wsd"\ndecay_fraction = 1.0\n[train]\nsteps = 1\n'  # whose rate is zero
    )
    subject = find_subject(tmp_path / "end.toml", print)
    lesson = make_lesson(subject, next_batch(subject))
    assert all(move.update > 0 for move in lesson.movements if move.path == "query/kernel")


def test_a_model_that_the_stages_do_not_tell_of_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "llama.toml"
    config.write_text(f'[data]\nprepared = "{tmp_path}"\n[model]\nnorm = "rms"\ngated_mlp = true\n')
    run_explain([str(config), "--out", str(tmp_path / "page.html")], status=2)
    assert "another ['norm', 'gated_mlp']" in capsys.readouterr().err


def test_the_page_needs_nothing_beside_it(pages: dict[str, str]) -> None:
    for page in pages.values():
        links = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert all(link.startswith(("#", "data:")) for link in links)
        assert "@import" not in page
        assert len(page.encode()) < 8e6


def test_each_stage_shows_lines_that_stand_in_the_program(pages: dict[str, str]) -> None:
    root = Path(__file__).parents[2]
    places = re.findall(
        r'<pre tabindex="0"><span class="soft">(.*?):(\d+)</span>\n(.*?)\n?</pre>', pages["en"], re.DOTALL
    )
    assert len(places) >= 21
    for file, line, code in places:
        first = (
            code.splitlines()[0]
            .replace("&#34;", '"')
            .replace("&#39;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
        )
        assert (root / file).read_text().splitlines()[int(line) - 1].strip() == first.replace("&amp;", "&")


def test_a_statement_that_is_gone_is_an_error_and_not_an_empty_box() -> None:
    assert statement(Block.__call__, "mixed_BTNH").text.startswith("mixed_BTNH = ")
    with pytest.raises(LookupError, match="no statement 0 that assigns gone_BTD"):
        statement(Block.__call__, "gone_BTD")
    with pytest.raises(LookupError):
        statement(Block.__call__, "mixed_BTNH", 2)


def leaves(words: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in words.items():
        yield from (
            leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
        )


def test_both_languages_have_the_same_sentences() -> None:
    english, chinese = (dict(leaves(read_words("walkthrough", language))) for language in ("en", "zh"))
    assert english.keys() == chinese.keys()
    for name, text in english.items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", chinese[name])), name


# Classes of elements whose text is the corpus or the model speaking.
_TOKENS = {"mono", "tokens", "table", "passages", "meter", "generated"}


def test_every_chinese_sentence_is_chinese() -> None:
    kept = [name for name, text in leaves(read_words("walkthrough", "zh")) if not re.search("[一-鿿]", text)]
    assert kept == []


class Sentences(HTMLParser):
    """Texts of a page that a reader reads as language: no code, formulas, tokens or style."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kinds = (dict(attrs).get("class") or "").split()
        if self.skipped or tag in ("pre", "math", "style", "script", "metadata") or _TOKENS & set(kinds):
            self.skipped.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.skipped:
            while self.skipped.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self.skipped and data.strip():
            self.found.append(data.strip())


def english_words(page: str) -> set[str]:
    parser = Sentences()
    parser.feed(page)
    arrays = r"(?:query|key|value|attention_output|mlp_up|mlp_down|norm_\d)/(?:kernel|bias|scale)"
    text = re.sub(arrays, "", "\n".join(parser.found))
    return set(re.findall(r"[A-Za-z]{2,}", text)) - NAMES


def test_the_chinese_page_has_no_untranslated_sentence(pages: dict[str, str]) -> None:
    assert english_words(pages["zh"]) == set()
    assert len(english_words(pages["en"])) > 200  # the check can fail


def test_a_movement_says_how_far_an_array_went() -> None:
    before = {"blocks": {"a": np.zeros((2, 4))}, "head": np.full(4, 2.0)}
    after = {"blocks": {"a": np.array([[0.0] * 4, [3.0, 0, 0, 0]])}, "head": np.full(4, 2.5)}
    first, second, head = movements(before, after)
    assert (first.path, first.layer, first.update, first.moved) == ("a", 0, 0, 0)
    assert (second.layer, second.update, second.moved) == (1, 1.5, 0.25)
    assert (head.path, head.layer, head.size, head.update, head.moved) == ("head", None, 2, 0.5, 1)


def test_a_directory_that_is_none_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_explain([str(tmp_path / "nothing")], status=4)
    assert "no such run" in capsys.readouterr().err


def test_the_last_line_says_where_the_page_is(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(f'[data]\ncorpus = "{prose}"\n[model]\nnum_layers = 1\nd_model = 16\n')
    run_explain(["c.toml"])
    shown = capsys.readouterr().out
    summary = json.loads(shown.splitlines()[-1])
    assert Path(summary["page"]).stat().st_size == summary["bytes"]
    assert all(f"{number}. " in shown for number in range(1, 22))
    assert read_words("walkthrough", "en")["xray"]["surprise_title"] in shown
    assert summary["loss"] == pytest.approx(np.log(1000), abs=1)
