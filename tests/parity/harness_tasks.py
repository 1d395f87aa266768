"""Tasks for lm-eval that need no network, made of the embedded handbook, and two sides' answers compared."""

import json
import random
import re
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

QUESTIONS = 24
NAMES = ("handbook_words", "handbook_paragraphs", "handbook_sentences")


def write_tasks(folder: Path, text: str) -> None:
    """Writes three tasks into a folder for lm-eval's include_path.

    handbook_words: which of four words ends a sentence; handbook_paragraphs: the perplexity of six of them,
    of a run of twelve, and of one word; handbook_sentences: sentences continued up to a full stop.
    """
    paragraphs = [part for part in text.split("\n\n") if len(part) > 200]
    sentences = [sentence for part in paragraphs for sentence in re.findall(r"[A-Z][\w ,']{40,}\w\.", part)]
    chance = random.Random(0)
    chosen = chance.sample(sentences, QUESTIONS)
    begins, words = zip(*(sentence[:-1].rsplit(" ", 1) for sentence in chosen), strict=True)
    questions = []
    for number, (begin, word) in enumerate(zip(begins, words, strict=True)):
        choices = [word, *chance.sample([other for other in words if other != word], 3)]
        chance.shuffle(choices)
        # The first question has no context at all, which is a case of its own.
        questions.append(
            {"begin": begin if number else "", "choices": choices, "answer": choices.index(word)}
        )
    joined = "\n\n".join(paragraphs[:12])
    texts = [{"text": part} for part in (*chance.sample(paragraphs, 6), joined, "Selling")]
    prompts = [
        {"begin": sentence[: len(sentence) // 2], "rest": sentence[len(sentence) // 2 :]}
        for sentence in chosen[:6]
    ]
    _write(
        folder,
        NAMES[0],
        questions,
        output_type="multiple_choice",
        doc_to_text="{{begin}}",
        doc_to_choice="{{choices}}",
        doc_to_target="{{answer}}",
        metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}],
    )
    _write(
        folder,
        NAMES[1],
        texts,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    )
    _write(
        folder,
        NAMES[2],
        prompts,
        output_type="generate_until",
        doc_to_text="{{begin}}",
        doc_to_target="{{rest}}",
        generation_kwargs={"until": [".", "\n"], "max_gen_toks": 16, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )


def _write(folder: Path, name: str, documents: list[dict[str, Any]], **task: Any) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    task |= {"task": name, "dataset_path": "json", "test_split": "test"}
    task |= {"dataset_kwargs": {"data_files": {"test": str(data)}}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def log_likelihoods(results: dict[str, Any], name: str) -> list[float]:
    """Of all requests of a task, in order."""
    found = []
    for sample in sorted(results["samples"][name], key=lambda sample: sample["doc_id"]):
        for (answer,) in sample["resps"]:
            found.append(float(answer[0] if isinstance(answer, tuple | list) else answer))
    return found


def answers(results: dict[str, Any], name: str) -> list[str]:
    """The texts of a task that generates, in order."""
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    return [sample["resps"][0][0] for sample in samples]


def run_theirs(directory: Path, tasks: Path, *, bos: str, eos: str, max_length: int) -> dict[str, Any]:
    """lm-eval's results of the three tasks by its own backend, on a directory that transformers loads."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"), bos_token=bos, eos_token=eos
    )
    side = HFLM(pretrained=model, tokenizer=tokenizer, max_length=max_length, batch_size=8, device="cpu")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return lm_eval.simple_evaluate(model=side, tasks=list(NAMES), task_manager=manager)
