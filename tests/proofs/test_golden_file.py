"""A golden file that is not one, or not a sound one, is refused in one line that says what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llm_jax.cli import command
from llm_jax.proofs.golden_file import Arrays
from llm_jax.verify import verify
from tests.support.golden import golden_file, start, write


@pytest.fixture(scope="module")
def golden() -> Arrays:
    program, weights, batches = start()
    return golden_file(program, weights, batches[:2])


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says, in its one line."""
    with pytest.raises(SystemExit) as stop:
        command.run(verify, ["parity", str(path)])
    said = capsys.readouterr().err
    assert stop.value.code == 3, said
    assert said.count("\n") == 1
    return said


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda golden: golden | {name: change(golden[name])}


def without(*names: str) -> Callable[[Arrays], Arrays]:
    return lambda golden: {
        name: array for name, array in golden.items() if name not in names and name.split("/")[0] not in names
    }


def put(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[-1] = value
    return array


BIAS = "language_model_out_linear_layer.bias"
DAMAGE: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "no losses": (without("losses"), "lacks losses"),
    "no start weights": (without("init"), "lacks init/NAME"),
    "no gradients": (without("grad0"), "lacks grad0/NAME"),
    "no final weights": (without("final"), "lacks final/NAME"),
    "one start weight less": (without(f"init/{BIAS}"), f"'{BIAS}' is missing"),
    "one gradient less": (without(f"grad0/{BIAS}"), f"grad0/{BIAS} is missing"),
    "one final weight less": (without("final/transformer_blocks.1.layer_norm_1.bias"), "is missing"),
    "a gradient of nothing": (lambda golden: golden | {"grad0/x": np.zeros(2)}, "grad0/x is the gradient of"),
    "a gradient of another shape": (changed(f"grad0/{BIAS}", lambda x: x[:-1]), BIAS),
    "a final weight of another shape": (changed(f"final/{BIAS}", lambda x: x[:-1]), "final/NAME"),
    "losses that are not numbers": (changed("losses", lambda x: put(x, np.nan)), "losses has a number"),
    "infinite weights": (changed(f"init/{BIAS}", lambda x: put(x, np.inf)), f"init/{BIAS} has a number"),
    "no steps": (
        lambda golden: golden | {"tokens": golden["tokens"][:0], "losses": np.zeros(0)},
        "tokens must have shape (1, 2, 7)",
    ),
    "a loss too few": (changed("losses", lambda x: x[:-1]), "losses must have shape (2,)"),
    "tokens of another context": (changed("tokens", lambda x: x[:, :, :-1]), "tokens must have shape"),
    "tokens without rows": (changed("tokens", lambda x: x[0]), "tokens must have shape"),
    "tokens as real numbers": (changed("tokens", lambda x: x + 0.5), "tokens must be whole numbers"),
    "a token outside the vocabulary": (changed("tokens", lambda x: put(x, 11)), "tokens has ids outside"),
    "a negative prompt": (changed("greedy_prompt", lambda x: put(x, -1)), "greedy_prompt has ids outside"),
    "greedy without its prompt": (changed("greedy", lambda x: x[3:]), "greedy must be"),
    "greedy of the prompt alone": (changed("greedy", lambda x: x[:3]), "greedy must be"),
    "an empty prompt": (changed("greedy_prompt", lambda x: x[:0]), "greedy must be"),
    "logits of another shape": (changed("logits0", lambda x: x[:, :-1]), "logits0 must have shape"),
    "a rate of nothing": (changed("lr", lambda x: x * 0), "lr must be above 0"),
    "three rates": (changed("lr", lambda x: np.full(3, x)), "lr must have shape ()"),
    "too few sizes": (changed("hyper", lambda x: x[:4]), "hyper must be"),
    "a size of nothing": (changed("hyper", lambda x: put(x, 0)), "hyper must be"),
    "sizes of another model": (changed("hyper", lambda x: x + np.eye(6, dtype=int)[2]), "are those of"),
    "words": (changed("loss0", lambda x: np.array("high")), "loss0 must be real numbers"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_unsound_golden_file_is_refused_by_what_is_wrong(
    golden: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, said = DAMAGE[name]
    write(tmp_path / "golden.npz", damage(golden))
    assert said in refused(tmp_path / "golden.npz", capsys)


def test_what_is_no_npz_file_is_refused(
    golden: Arrays, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "golden.npz", golden)
    whole = (tmp_path / "golden.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 3
    (tmp_path / "hurt.npz").write_bytes(whole[:middle] + b"\x55" * 64 + whole[middle + 64 :])
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", hyper=np.array([{}]))
    (tmp_path / "folder.npz").mkdir()
    for path in [*tmp_path.iterdir(), tmp_path / "absent.npz"]:
        if path.name != "golden.npz":
            assert "must be a .npz" in refused(path, capsys), path.name
