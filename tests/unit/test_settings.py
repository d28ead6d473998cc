from pathlib import Path

import pytest

from strongroom.errors import ConfigurationInvalid
from strongroom.settings import WorkerSettings
from strongroom_cli.settings import DatabaseSettings
from strongroom_escrow.settings import EscrowSettings
from strongroom_recovery.settings import ProverSettings, RecoverySettings

WORKERS = (EscrowSettings, RecoverySettings, ProverSettings)


@pytest.fixture(autouse=True)
def _complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {name: None for model in WORKERS for name in model.model_fields}:
        monkeypatch.delenv(f"STRONGROOM_{name.upper()}", raising=False)
    for name, field in EscrowSettings.model_fields.items():
        if field.is_required():
            monkeypatch.setenv(f"STRONGROOM_{name.upper()}", str(tmp_path))


@pytest.fixture(params=WORKERS)
def worker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[WorkerSettings]:
    if request.param is not EscrowSettings:
        monkeypatch.setenv("STRONGROOM_SEALING_KEYS_DIR", str(tmp_path))
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("STRONGROOM_ESCROW_REQUIRE_USERID", "STRONGROOM_ESCROW_REQUIRE_USER_ID"),
        ("strongroom_escrow_require_user", "STRONGROOM_ESCROW_REQUIRE_USER_ID"),
        ("STRONGROOM_ESCROW_BATCH_MESSAGES_MAX", "STRONGROOM_BATCH_MESSAGES_MAX"),
        ("STRONGROOM_RECOVERY_REQUIRE_USER_ID", "STRONGROOM_ESCROW_REQUIRE_USER_ID"),
    ],
)
def test_a_misspelt_variable_of_a_worker_is_refused_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    """Ignored, it would switch off what it was to switch on; its value is not shown."""
    monkeypatch.setenv(name, "canary")
    with pytest.raises(ConfigurationInvalid, match=f"{name}: is no setting of this worker") as caught:
        EscrowSettings.load()
    assert caught.value.hint == f"the nearest one is {nearest}; or unset it"
    assert "canary" not in f"{caught.value} {caught.value.hint}"


def test_a_variable_that_is_for_others_is_left_alone(
    worker: type[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands' own, those of the database's script of roles, and everybody else's."""
    for name in (
        "STRONGROOM_HOME",
        "STRONGROOM_OPERATOR_BROKER_URL",
        "STRONGROOM_ESCROW_PASSWORD",
        "STRONGROOM_RECOVERY_PASSWORD",
        "ESCROW_REQUIRE_USER_ID",
    ):
        monkeypatch.setenv(name, "x")
    if worker is not ProverSettings:
        monkeypatch.setenv(f"STRONGROOM_{worker.__name__.removesuffix('Settings').upper()}_REQUIRE_USER_ID", "true")
    assert isinstance(worker.load(), worker)


def test_commands_do_not_look_at_the_workers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that was prepared for a worker serves for `strongroom db`, too."""
    monkeypatch.setenv("STRONGROOM_RECOVERY_REQUIRE_USERID", "true")
    assert isinstance(DatabaseSettings.load(), DatabaseSettings)
