"""What can be set, from where, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from components.core.errors import SettingsError
from components.core.settings import Settings, child_environment, load_settings


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "basketweave.toml"
    monkeypatch.setenv("BASKETWEAVE_CONFIG", str(path))
    return path


def complaint(**overrides: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(**overrides)
    return str(caught.value)


def test_the_call_beats_the_environment_which_beats_the_file_which_beats_the_default(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().train.seed == 20_261_124
    toml.write_text("[train]\nseed = 1\nembedding_dim = 8\n")
    assert load_settings().train.seed == 1
    monkeypatch.setenv("BASKETWEAVE_TRAIN__SEED", "2")
    assert load_settings().train.seed == 2
    assert load_settings(train={"seed": 3}).train.seed == 3
    # What one source leaves out, the next one says.
    assert load_settings(train={"seed": 3}).train.embedding_dim == 8


def test_an_unknown_key_of_the_file_names_the_nearest(toml: Path) -> None:
    toml.write_text("[train]\nsead = 1\n")
    assert complaint() == "'train.sead' is no setting. Did you mean 'train.seed'?"
    toml.write_text("[grap]\nprice_bands = 3\n")
    assert complaint() == "'grap' is no setting. Did you mean 'graph'?"


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASKETWEAVE_SPLIT__WINDOW_DAY", "7")
    assert complaint() == (
        "The environment variable BASKETWEAVE_SPLIT__WINDOW_DAY is no setting. "
        "Did you mean 'BASKETWEAVE_SPLIT__WINDOW_DAYS'?"
    )


def test_a_key_like_no_other_points_to_the_list_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(qqqqqq=1) == "'qqqqqq' is no setting. See docs/settings.md for all of them."


def test_what_kubernetes_puts_beside_a_service_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASKETWEAVE_SERVICE_HOST", "BASKETWEAVE_PORT_3000_TCP_ADDR", "BASKETWEAVE_API_SERVICE_PORT_HTTP"):
        monkeypatch.setenv(name, "10.0.0.1")
    assert load_settings().project == "demo"


def test_a_value_out_of_range_names_its_setting_and_what_it_was(toml: Path) -> None:
    toml.write_text("[split]\nwindow_days = 0\n")
    assert complaint() == "The setting 'split.window_days' is 0: Input should be greater than or equal to 1."
    assert complaint(project="My Shop").startswith("The setting 'project' is 'My Shop'")


def test_a_file_that_is_no_toml_is_named(toml: Path) -> None:
    toml.write_text("[train\n")
    assert complaint().startswith(f"{toml} is not valid TOML: ")


@pytest.mark.parametrize("name", ["BASKETWEAVE_GRAPH__RELATIONS", "BASKETWEAVE_GRAPH"])
def test_a_list_or_section_that_is_no_json_names_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASKETWEAVE_SOURCE__PROFILE", "contract")  # text is no JSON either, and need not be
    monkeypatch.setenv(name, "co_purchase")
    assert complaint().startswith(f"The environment variable {name} must be JSON")


def test_settings_do_not_change(shop: Settings) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        shop.project = "other"
    with pytest.raises(ValidationError, match="frozen"):
        shop.train.seed = 7


def test_secrets_are_not_shown_even_where_they_are_mistaken(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(serve={"api_keys": ["open-sesame"]})
    assert settings.serve.api_keys[0].get_secret_value() == "open-sesame"
    assert "sesame" not in repr(settings) + str(settings) + settings.model_dump_json()
    for mistake in ("open-sesame", [{"key": "open-sesame"}], [["open-sesame"]]):
        said = complaint(serve={"api_keys": mistake})
        assert "serve.api_keys" in said
        assert "sesame" not in said
    assert "sesame" not in complaint(serve=["open-sesame"])
    monkeypatch.setenv("BASKETWEAVE_SERVE__API_KEYS", "open-sesame")
    assert "sesame" not in complaint()


def test_a_child_process_reads_the_very_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BASKETWEAVE_TRAIN__SEED", "5")
    settings = load_settings(
        home=Path("here"), graph={"relations": ["co_purchase"]}, serve={"api_keys": ["open-sesame"]}, train={"seed": 6}
    )
    environment = child_environment(settings)
    monkeypatch.chdir("/")
    monkeypatch.setattr("os.environ", environment)
    child = load_settings()
    assert "PATH" in environment
    assert child == settings.model_copy(update={"home": tmp_path / "here"})
    assert child.serve.api_keys[0].get_secret_value() == "open-sesame"


def test_only_the_named_sections_decide_a_steps_hash(shop: Settings) -> None:
    other_port = load_settings(home=shop.home, serve={"workers": 2})
    other_seed = load_settings(home=shop.home, train={"seed": 1})
    assert shop.section_sha256(["train", "split"]) == other_port.section_sha256(["split", "train"])
    assert shop.section_sha256(["train", "split"]) != other_seed.section_sha256(["train", "split"])


def test_projects_share_a_home_and_no_artifact(tmp_path: Path) -> None:
    first, second = (load_settings(home=tmp_path, project=name) for name in ("one", "two"))
    assert first.artifact_root == f"{tmp_path}/one/artifacts"
    assert second.artifact_root == f"{tmp_path}/two/artifacts"
    remote = load_settings(home=tmp_path, project="one", storage_root="s3://bucket/shops/")
    assert remote.artifact_root == "s3://bucket/shops/one"
