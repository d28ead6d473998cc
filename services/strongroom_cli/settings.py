"""What operators' commands are told by the environment."""

from pathlib import Path

from pydantic import SecretStr

from strongroom.settings import EnvironmentSettings


class DatabaseSettings(EnvironmentSettings):
    """database_url: PostgreSQL URL of the schema's owner (or, for checks, of any role); also by `_FILE`."""

    database_url: SecretStr
    database_url_file: Path | None = None


class BrokerSettings(EnvironmentSettings):
    """broker_url: AMQP URL of a worker's user; also by `_FILE`. broker_ca_file: CA in PEM."""

    broker_url: SecretStr
    broker_url_file: Path | None = None
    broker_ca_file: Path | None = None


class OperatorBrokerSettings(EnvironmentSettings):
    """operator_broker_url: AMQP URL of a user who may declare; also by `_FILE`. broker_ca_file: CA in PEM."""

    operator_broker_url: SecretStr
    operator_broker_url_file: Path | None = None
    broker_ca_file: Path | None = None
