"""ROUGE for English and Chinese, and the first sentence as a baseline."""

import sys

import pytest

from llm_jax.base.errors import UserError
from llm_jax.evaluation.rouge import lead_1, score_rouge, tokenize


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UserError, match=r'pip install "llm-jax\[eval\]"'):
        score_rouge(["a"], ["a"])


def test_tokens_are_words_or_chinese_characters() -> None:
    assert tokenize("Don't use GPT-4 on 2,000 rows_now.") == [
        "don",
        "t",
        "use",
        "gpt",
        "4",
        "on",
        "2",
        "000",
        "rows",
        "now",
    ]
    assert tokenize("用JAX训练Émile的模型3次。") == [
        "用",
        "jax",
        "训",
        "练",
        "émile",
        "的",
        "模",
        "型",
        "3",
        "次",
    ]
    assert tokenize("。！ ?") == []


def test_scores_by_hand() -> None:
    pytest.importorskip("rouge_score")
    found = score_rouge(["我爱北京", "the cat sat"], ["我爱南京", "the cat sat"])
    assert found.rows.tolist() == [[3 / 4, 1 / 3, 3 / 4], [1, 1, 1]]
    assert found.rouge2.value == pytest.approx(2 / 3)
    assert found.rouge2.low == pytest.approx(1 / 3)
    assert score_rouge(["今天"], [""]).rouge_l == (0, 0, 0)


def test_english_scores_are_those_of_the_librarys_own_tokenizer() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    first = "Return the mean of 3 values; it's NaN (not-a-number) where there are none."
    second = "Return the mean of values, which is NaN where 3 of them are none_at_all."
    theirs = [score.fmeasure for score in scorer.score(first, second).values()]
    assert score_rouge([first], [second]).rows[0].tolist() == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("Version 2.5 is\nhere! Next.", "Version 2.5 is here!"),
        ('He said "no." Then left.', 'He said "no."'),
        ("今天下雨。明天晴。", "今天下雨。"),
        ("他说：“不。”然后走了。", "他说：“不。”"),
        ("no end\nof a sentence\n\nNext paragraph.", "no end of a sentence"),
        ("  ", ""),
    ],
)
def test_lead_1_is_the_first_sentence(text: str, first: str) -> None:
    assert lead_1(text) == first
