"""The command to conversations with a tiny open model."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

import llm_jax
from llm_jax.chat import chat
from llm_jax.cli import chat_session, command
from llm_jax.cli.chat_session import Conversation, converse, typed_lines
from llm_jax.config.decoding import SamplingConfig
from llm_jax.convert import convert
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.decoder import init_params
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.conversation import conversation_tokens
from tests.interop.test_families import LLAMA
from tests.tokenization.test_conversation import CHATML, asked
from tests.tokenization.test_file_tokenizer import byte_level

GREEDY = SamplingConfig(temperature=0)
SHORT = ["--max_new_tokens", "6", "--temperature", "0"]


def import_talking_model(folder: Path) -> Path:
    """A tiny open model with a template, imported."""
    (folder / "theirs").mkdir()
    config_json = LLAMA | {"vocab_size": 320, "hidden_size": 24, "max_position_embeddings": 128}
    config_json["num_hidden_layers"] = 1
    config = read_model_config(config_json)
    # Large enough that what a token says depends on all before it.
    params = jax.tree.map(lambda leaf: 8 * leaf, init_params(jax.random.key(3), config))
    write_directory(folder / "theirs", config_json, config, params)
    told = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
    for name, content in (("tokenizer.json", byte_level()), ("tokenizer_config.json", told)):
        (folder / "theirs" / name).write_text(json.dumps(content))
    with pytest.raises(SystemExit) as stop:
        command.run(convert, ["import", str(folder / "theirs"), str(folder / "ours")])
    assert stop.value.code == 0
    return folder / "ours"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_talking_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def model(directory: Path) -> LanguageModel:
    return llm_jax.load(directory)


@pytest.fixture
def talk(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, str]]:
    """What the command prints on both streams for lines from a pipe."""

    def run(lines: list[str], *words: str, status: int = 0, where: Path = directory) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        with pytest.raises(SystemExit) as stop:
            command.run(chat, [str(where), *words, *SHORT[2 * ("--max_new_tokens" in words) :]])
        assert stop.value.code == status
        return capsys.readouterr()

    return run


def ending_with(model: LanguageModel, *ids: int) -> LanguageModel:
    return dataclasses.replace(model, about=model.about | {"chat": {"eos_ids": list(ids)}})


def answer(model: LanguageModel, messages: list, count: int = 6) -> str:
    ids = conversation_tokens(messages, model.chat_format, model.tokenizer)
    return model.generate(ids, max_new_tokens=count, sampling=GREEDY)


def test_an_import_keeps_template_and_end_tokens(model: LanguageModel) -> None:
    end = model.tokenizer.token_id("<|im_end|>")
    assert model.about["chat"] == model.chat_format.to_dict()
    assert model.chat_format == ChatFormat(CHATML, None, "<|im_end|>", (end,))


def test_each_line_of_a_pipe_gets_the_answer_to_all_that_was_said(model: LanguageModel, talk: Any) -> None:
    first = answer(model, asked("Hi"))
    second = answer(model, asked("Hi", first, "And?"))
    said, remarks = talk(["Hi", "", "And?", "/reset", "Hi"])
    assert said == f"{first}\n{second}\n{first}\n"
    assert remarks == "the conversation begins anew\n"


def test_a_system_message_comes_first_and_can_be_changed(model: LanguageModel, talk: Any) -> None:
    told = {"role": "system", "content": "Hum."}
    wanted = answer(model, [told, *asked("Hi")])
    assert wanted != answer(model, asked("Hi"))
    assert talk(["Hi"], "--system", "Hum.")[0] == f"{wanted}\n"
    assert talk(["/system  Hum.", "Hi", "/exit", "Hi"], "--system", "99")[0] == f"{wanted}\n"


def test_messages_are_saved_whole(model: LanguageModel, talk: Any, tmp_path: Path) -> None:
    said, remarks = talk(["漢", f"/save {tmp_path / 'talk.json'}"], "--system", "Hum.")
    wanted = [{"role": "system", "content": "Hum."}, *asked("漢", said[:-1])]
    assert json.loads((tmp_path / "talk.json").read_text(encoding="utf-8")) == wanted
    assert f"saved 3 messages to {tmp_path / 'talk.json'}" in remarks
    assert [file.name for file in tmp_path.iterdir()] == ["talk.json"]


def test_the_oldest_exchange_is_left_out_with_a_remark_when_the_context_is_full(
    model: LanguageModel, talk: Any
) -> None:
    long = "it hums when it is cold. it hums when it is cold."
    said, remarks = talk([long, long, long], "--system", "Hum.")
    told = {"role": "system", "content": "Hum."}
    tokens = lambda messages: len(conversation_tokens(messages, model.chat_format, model.tokenizer))  # noqa: E731
    first = answer(model, [told, *asked(long)])
    second = answer(model, [told, *asked(long, first, long)])
    assert tokens([told, *asked(long, first, long)]) <= 122
    assert tokens([told, *asked(long, first, long, second, long)]) > 122
    assert said == f"{first}\n{second}\n{answer(model, [told, *asked(long, second, long)])}\n"
    assert remarks == "the context is full: the oldest exchange is left out of what the model sees\n"


MISTAKES = [
    (["Hi"], ["--max_new_tokens", "128"], 2, "must be below the model's context of 128 tokens"),
    (["Hi"], ["--max_new_tokens", "0"], 2, "must be at least 1"),
    (["x" * 500], [], 2, "the message needs"),
    (["/save"], [], 2, "/save must have the name of a file"),
    (["/save /"], [], 2, "cannot be written"),
    (["/sav x"], [], 2, "/sav must be one of /reset"),
    (["Hi"], ["--template", "/nowhere"], 3, "cannot be read"),
]


@pytest.mark.parametrize(("lines", "words", "status", "message"), MISTAKES)
def test_a_mistake_from_a_pipe_is_one_line(
    talk: Any, lines: list[str], words: list[str], status: int, message: str
) -> None:
    said, remarks = talk(lines, *words, status=status)
    assert said == ""
    assert message in remarks
    assert remarks.count("\n") == 1


def test_a_model_without_a_template_says_what_to_do(
    directory: Path, talk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = ending_with(llm_jax.load(directory))
    monkeypatch.setattr("llm_jax.language_model.model.load", lambda *_, **__: loaded)
    assert "give one with --template FILE" in talk(["Hi"], status=2)[1]
    (tmp_path / "words.jinja").write_text("{{ messages[-1].content }}")
    ids = loaded.tokenizer.encode("it hums").tolist()
    wanted = loaded.generate(ids, max_new_tokens=6, sampling=GREEDY)
    assert talk(["it hums"], "--template", str(tmp_path / "words.jinja"))[0] == f"{wanted}\n"


def conversation(model: LanguageModel, template: str = CHATML) -> Conversation:
    form = dataclasses.replace(model.chat_format, template=template)
    return Conversation(model, form, system="", max_new_tokens=6, sampling=GREEDY, seed=0)


def test_a_mistake_at_the_terminal_is_shown_and_the_conversation_goes_on(
    model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing = "{% if 'no' in messages[-1].content %}{{ raise_exception('not this') }}{% endif %}" + CHATML
    talking = conversation(model, refusing)
    converse(talking, iter(["no", "/nothing", "/help", "Hi"]), forgiving=True)
    shown = capsys.readouterr()
    assert shown.out == f"{answer(model, asked('Hi'))}\n"
    assert "not this" in shown.err
    assert "/nothing must be one of" in shown.err
    assert chat_session.HELP in shown.err
    assert [message["content"] for message in talking.messages] == ["Hi", shown.out[:-1]]


@pytest.mark.parametrize("pieces", [["so", " far"], []])
def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    model: LanguageModel,
    pieces: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[str]:
        yield from pieces
        raise KeyboardInterrupt

    talking = conversation(model)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "stream", interrupted)
        converse(talking, iter(["Hi"]), forgiving=True)
    assert capsys.readouterr() == ("".join(pieces) + "\n", "stopped\n")
    kept = asked("Hi", "so far") if pieces else []
    assert talking.messages == kept
    converse(talking, iter(["And?"]), forgiving=True)
    assert capsys.readouterr().out == f"{answer(model, [*kept, *asked('And?')])}\n"


def test_ctrl_c_between_pieces_keeps_what_was_said(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if text == " far":
                raise KeyboardInterrupt
            return super().write(text)

    monkeypatch.setattr(LanguageModel, "stream", lambda *_, **__: iter(["so", " far", "!"]))
    monkeypatch.setattr("sys.stdout", Screen())
    talking = conversation(model)
    converse(talking, iter(["Hi"]), forgiving=True)
    assert talking.messages == asked("Hi", "so far")


def test_ctrl_c_at_the_prompt_empties_the_line_and_ctrl_d_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([KeyboardInterrupt(), "Hi", EOFError()])

    def typing(_: str) -> str:
        got = next(typed)
        if isinstance(got, BaseException):
            raise got
        return got

    monkeypatch.setattr("builtins.input", typing)
    assert list(typed_lines("> ")) == ["Hi"]
