"""Settings: what cannot work is refused at the start, and the message names the variable."""

from __future__ import annotations

import pathlib

import pytest

from headwater.errors import SettingsError
from headwater.settings import Settings


def test_nothing_need_be_set():
    """A laptop needs no settings; the defaults can work together."""
    settings = Settings.of({})
    assert settings.url == "http://127.0.0.1:8080"
    assert settings.kafka.properties() == {"security.protocol": "PLAINTEXT"}
    assert {where for _, _, where in settings.describe()} == {"default"}


def test_groups_are_nested_by_two_underscores():
    """Names are those of the documentation, and any client property passes through `EXTRA`."""
    settings = Settings.of(
        {
            "HEADWATER_INSTANCE": "agents-0",
            "HEADWATER_HTTP__PORT": "9000",
            "HEADWATER_KAFKA__BOOTSTRAP": "kafka:9092",
            "HEADWATER_KAFKA__EXTRA": '{"client.rack": "a"}',
            "HEADWATER_REDIS__URL": "redis://later",
            "PATH": "/bin",
        }
    )
    assert (settings.instance, settings.http.port) == ("agents-0", 9000)
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.kafka.properties()["client.rack"] == "a"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADWATER_KAFKA__BOOTSRAP", "kafka:9092"),
        ("HEADWATER_KAFAK__BOOTSTRAP", "kafka:9092"),
        ("HEADWATER_KAFKA", "kafka:9092"),
        ("HEADWATER_HTTP__PORT", "http"),
        ("HEADWATER_HTTP__PORT", "70000"),
        ("HEADWATER_INSTANCE", "a b"),
        ("HEADWATER_NAMESPACE", "Bank.eu"),
        ("HEADWATER_TENANT", "T"),
        ("HEADWATER_URL", "127.0.0.1:8080"),
        ("HEADWATER_LOOPS__BATCH_MS_MAX", "0"),
        ("HEADWATER_KAFKA__EXTRA", "client.rack=a"),
        ("HEADWATER_KAFKA__EXTRA", '{"a": {}}'),
        ("HEADWATER_KAFKA__SECURITY_PROTOCOL", "TLS"),
        ("HEADWATER_KAFKA__GROUP_PROTOCOL", "share"),
        ("HEADWATER_REGISTRY__AUTO_REGISTER", "true"),
        ("HEADWATER_LOOPS__CALLS_WEIGHTS", "acme=3"),
        ("HEADWATER_LOOPS__CALLS_WEIGHTS", '{"acme": 0}'),
        ("HEADWATER_KAFKA__SESSION_MS", "8000"),
        ("HEADWATER_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("HEADWATER_KAFKA__SASL_PASSWORD_FILE", "/nowhere/at/all"),
    ],
)
def test_setting_that_cannot_work_is_named(variable, value):
    """Whoever reads the message knows which variable to change."""
    with pytest.raises(SettingsError) as caught:
        Settings.of({variable: value})
    assert str(caught.value).startswith(f"{variable}: ") or str(caught.value).startswith(
        f"{variable} "
    )


def test_every_setting_can_be_set_and_is_described():
    """A variable's value is text, whatever the setting is; `doctor` lists each with where it is from."""
    other = {
        "HEADWATER_KAFKA__EXTRA": '{"client.rack": "a"}',
        "HEADWATER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "HEADWATER_KAFKA__GROUP_PROTOCOL": "consumer",
        "HEADWATER_KAFKA__SESSION_MS": "20000",
        "HEADWATER_KAFKA__TRANSACTION_MS": "6000",
        "HEADWATER_LOOPS__CALLS_WEIGHTS": '{"acme": 3}',
        "HEADWATER_SUPERVISOR__ENABLED": "false",
        "HEADWATER_SUPERVISOR__MEMORY_BYTES": "2000000",
        "HEADWATER_URL": "http://gateway:8080",
        "HEADWATER_HTTP__PORT": "9000",
        "HEADWATER_BLOBS__BYTES_MAX": str(8 * 1024**2),
        "HEADWATER_BLOBS__HELD_BYTES_MAX": str(128 * 1024**2),
        "HEADWATER_BLOBS__KEEP_S": "90000",
    }
    never = "HEADWATER_REGISTRY__AUTO_REGISTER"
    names = [name for name, _, _ in Settings.of({}).describe()]
    assert other.keys() <= {*names}
    given = {
        name: other.get(name) or _another(value)
        for name, value, _ in Settings.of({}).describe()
        if name != never
    }
    described = Settings.of(given).describe()
    assert [name for name, _, _ in described] == names
    assert {name for name, _, where in described if where == "default"} == {never}


def _another(value: str) -> str:
    """Return a value like this one, and not it."""
    try:
        return str(int(float(value)) + 1)
    except ValueError:
        return f"{value}x"


def test_tables_are_json_objects():
    """What has names of its own in it is given as JSON, and described as it is given."""
    settings = Settings.of({"HEADWATER_LOOPS__CALLS_WEIGHTS": '{"acme": 3, "zoo": 1}'})
    assert settings.loops.calls_weights == {"acme": 3, "zoo": 1}
    assert ("HEADWATER_LOOPS__CALLS_WEIGHTS", '{"acme": 3, "zoo": 1}', "set") in settings.describe()
    with pytest.raises(SettingsError, match="CALLS_WEIGHTS: acme: Input should be"):
        Settings.of({"HEADWATER_LOOPS__CALLS_WEIGHTS": '{"acme": "many"}'})


def test_client_properties_may_come_from_a_file(tmp_path: pathlib.Path):
    """Some of them let somebody in."""
    file = tmp_path / "extra.json"
    file.write_text('{"sasl.oauthbearer.client.secret": "s3cret"}')
    settings = Settings.of({"HEADWATER_KAFKA__EXTRA_FILE": str(file)})
    assert settings.kafka.properties()["sasl.oauthbearer.client.secret"] == "s3cret"
    assert "s3cret" not in str(settings.describe())


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("HEADWATER_HTTP__PROT", "HEADWATER_HTTP__PORT"),
        ("HEADWATER_TENNANT", "HEADWATER_TENANT"),
        ("HEADWATER_HTPT__PORT", "HEADWATER_HTTP__PORT"),
        ("HEADWATER_KAFKA_BOOTSTRAP", "HEADWATER_KAFKA__BOOTSTRAP"),
        ("HEADWATER_TOKN", "HEADWATER_TOKEN"),
        ("HEADWATER_ZZZ", None),
    ],
)
def test_misspelt_setting_is_said_to_be_none(variable, meant):
    """In the same words, wherever the slip is, with the nearest that there is."""
    hint = f": did you mean {meant}\\?" if meant else ";"
    with pytest.raises(
        SettingsError, match=f"{variable}: there is no such setting{hint} `headwater d"
    ):
        Settings.of({variable: "1"})


def test_secret_is_read_from_a_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """A secret in a file needs no variable of its own, in the process's own environment too."""
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    monkeypatch.setenv("HEADWATER_KAFKA__SASL_PASSWORD_FILE", str(file))
    settings = Settings.of()
    assert settings.kafka.sasl_password.get_secret_value() == "s3cret"
    assert settings.kafka.properties()["sasl.password"] == "s3cret"


def test_secret_given_twice_is_refused(tmp_path: pathlib.Path):
    """Nobody can tell which of two was meant."""
    file = tmp_path / "password"
    file.write_text("x")
    given = {
        "HEADWATER_REGISTRY__PASSWORD_FILE": str(file),
        "HEADWATER_REGISTRY__PASSWORD": "y",
    }
    with pytest.raises(SettingsError, match="set one of them"):
        Settings.of(given)
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="HEADWATER_REGISTRY__PASSWORD_FILE"):
        Settings.of({"HEADWATER_REGISTRY__PASSWORD_FILE": str(file)})


def test_environment_that_is_given_is_the_only_one(monkeypatch: pytest.MonkeyPatch):
    """A test, or a host of several processes, is not touched by what the shell has set."""
    monkeypatch.setenv("HEADWATER_INSTANCE", "leaked")
    monkeypatch.setenv("HEADWATER_KAFKA__BOOTSTRAP", "leaked:9092")
    settings = Settings.of({})
    assert settings.instance != "leaked"
    assert settings.kafka.bootstrap != "leaked:9092"


def test_description_hides_secrets():
    """`doctor` prints every setting; nothing it prints lets anybody in."""
    settings = Settings.of(
        {
            "HEADWATER_KAFKA__SASL_PASSWORD": "s3cret",
            "HEADWATER_KAFKA__EXTRA": '{"ssl.key.password": "s3cret", "client.rack": "a"}',
        }
    )
    described = {name: (value, where) for name, value, where in settings.describe()}
    assert "s3cret" not in str(described)
    assert described["HEADWATER_KAFKA__SASL_PASSWORD"][1] == "set"
    assert "client.rack" in described["HEADWATER_KAFKA__EXTRA"][0]
