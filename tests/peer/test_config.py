"""The configuration: precedence, every kind of wrong value with the words that name it, and coupled keys."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.config import Config, ConfigError, flag_of, load_config
from peer.config_keys import KEYS
from trust.bootstrap import BootstrapSecret
from trust.ceremony.growth import SignerRules

TOKEN = "gsm1.c2VjcmV0LXNlY3JldA"
SECRET = BootstrapSecret(b"s" * 32)


def load(path: Path | None = None, environ=None, **overrides) -> Config:
    names = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_config(path, environ or {}, names, hostname=lambda: "host-1", find_address=lambda: "10.1.2.3")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "peer.yaml"
    path.write_text(text)
    return path


def test_defaults_are_a_peer_on_the_documented_ports():
    config = load()
    assert (config.ports.gossip, config.ports.inbound, config.ports.outbound, config.ports.admin) == (
        7946, 15006, 15001, 15020,
    )  # fmt: skip
    assert config.data_dir == Path.cwd() / "gossamer-data"
    assert config.services_dir == config.data_dir / "services.d"
    assert (config.name, config.bind, config.advertise) == ("host-1", "0.0.0.0", "10.1.2.3")
    assert (config.trust_domain, config.profile, config.engine) == ("cluster.local", "lan", "embedded")
    assert (config.drain_timeout_s, config.clock_drift_max_s, config.svid.ttl_s) == (45.0, 5.0, 3600.0)
    assert config.access_log is True
    assert config.token is None
    assert config.bootstrap is False


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    path = written(tmp_path, "name: from-file\nzone: from-file\nports: {gossip: 7001, admin: 7002}\n")
    environ = {"GOSSAMER_NAME": "from-env", "GOSSAMER_ZONE": "from-env", "GOSSAMER_PORTS_GOSSIP": "7003"}
    config = load(path, environ, name="from-flag")
    assert (config.name, config.zone) == ("from-flag", "from-env")
    assert (config.ports.gossip, config.ports.admin, config.ports.inbound) == (7003, 7002, 15006)


def test_every_key_has_an_environment_twin_a_flag_name_and_a_place_in_config():
    fields = {field.name for field in dataclasses.fields(Config)}
    for key in KEYS:
        assert re.fullmatch(r"GOSSAMER_[A-Z_]+", key.variable)
        assert flag_of(key.name).startswith("--")
        # Two keys are ways to say another one.
        assert key.name.partition(".")[0] in fields | {"token_file", "bootstrap_expect"}
    assert len({key.variable for key in KEYS}) == len(KEYS)


def test_the_environment_names_the_file_when_no_flag_does(tmp_path):
    path = written(tmp_path, "name: from-file\n")
    assert load(None, {"GOSSAMER_CONFIG": str(path)}).name == "from-file"


def test_an_empty_variable_is_not_given():
    assert load(None, {"GOSSAMER_NAME": ""}).name == "host-1"


def test_paths_in_the_file_are_relative_to_the_file(tmp_path):
    path = written(tmp_path, "data_dir: state\nservices_dir: /etc/services.d\naccess_log: logs/access.log\n")
    config = load(path)
    assert config.data_dir == tmp_path / "state"
    assert config.services_dir == Path("/etc/services.d")
    assert config.access_log == tmp_path / "logs/access.log"


def test_durations_are_read_with_units_and_as_seconds(tmp_path):
    path = written(tmp_path, "drain_timeout_s: 1m30s\nclock_drift_max_s: 2\nsvid: {ttl_s: 2h}\n")
    config = load(path)
    assert (config.drain_timeout_s, config.clock_drift_max_s, config.svid.ttl_s) == (90.0, 2.0, 7200.0)


def test_seeds_are_addresses_from_a_list_or_a_comma_separated_variable(tmp_path):
    path = written(tmp_path, "seeds: [10.0.0.1, 'seed.example:7000', '[::1]:7001', 10.0.0.1]\n")
    assert load(path).seeds == (("10.0.0.1", 7946), ("seed.example", 7000), ("::1", 7001))
    assert load(None, {"GOSSAMER_SEEDS": "a:1, b:2"}).seeds == (("a", 1), ("b", 2))
    assert load(seeds=("c:3",)).seeds == (("c", 3),)
    assert load(path, seeds=()).seeds == load(path).seeds  # a flag that was not given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prots: {}\n", "peer.yaml:1: prots: unknown key (did you mean ports?)"),
        ("name: a\nports:\n  gosip: 1\n", "peer.yaml:3: ports.gosip: unknown key (did you mean gossip?)"),
        ("zzz: 1\n", "peer.yaml:1: zzz: unknown key"),
        ("ports: 7946\n", "peer.yaml:1: ports: must be a mapping of keys"),
        ("ports: {gossip: high}\n", "ports.gossip: must be a whole number, is 'high'"),
        ("ports: {gossip: 70000}\n", "ports.gossip: must be from 1 to 65535, is 70000"),
        ("ports: {gossip: true}\n", "ports.gossip: must be a whole number, is True"),
        ("bind: localhost\n", "peer.yaml:1: bind: must be an IP address, is 'localhost'"),
        ("advertise: 0.0.0.0\n", "advertise: must be an address other peers can reach"),
        (
            "bind: 10.0.0.1\nadvertise: '::1'\n",
            "peer.yaml:2: advertise: ::1 and bind 10.0.0.1 are of different",
        ),
        ("seeds: 7\n", "seeds: must be a list of host:port, is 7"),
        ("seeds: ['a:b']\n", "seeds: 'a:b': port 'b' is not a number"),
        ("seeds: ['a b']\n", "seeds: 'a b' is not an address"),
        ("profile: wna\n", "profile: must be one of lan, wan, local; is 'wna' (did you mean wan?)"),
        ("engine: envoy\n", "engine: engine envoy is not supported by this version"),
        ("bootstrap: maybe\n", "bootstrap: must be true or false, is 'maybe'"),
        ("bootstrap_expect: 17\n", "bootstrap_expect: must be from 1 to 16"),
        ("bootstrap: true\nbootstrap_expect: 3\n", "bootstrap_expect: contradicts"),
        (
            f"bootstrap_expect: 3\ntoken: {TOKEN}\n",
            "bootstrap_expect: a peer either makes a new mesh or joins",
        ),
        (f"token: {SECRET.text}\n", "token: a bootstrap token is for peers that make a mesh together"),
        (f"bootstrap_expect: 3\ntoken: {SECRET.text[:-1]}\n", "token: the bootstrap token is damaged"),
        ("ca: {signers: 17}\n", "ca.signers: must be from 1 to 16"),
        ("ca: {signers: many}\n", "ca.signers: must be a whole number or auto"),
        ("ca: {signers: 3, threshold: 4}\n", "ca.threshold: ca.threshold is 4, of 3 signers"),
        ("bootstrap: false\nbootstrap_expect: 1\n", "bootstrap_expect: contradicts"),
        ("drain_timeout_s: soon\n", "drain_timeout_s: 'soon' is not a duration; write it like 45s"),
        ("drain_timeout_s: -1\n", "drain_timeout_s: -1 is not a duration"),
        ("drain_timeout_s: .inf\n", "drain_timeout_s: inf is not a duration"),
        ("drain_timeout_s: 2h\n", "drain_timeout_s: must be from 0s to 3600s, is 7200s"),
        ("svid: {ttl_s: [1]}\n", "svid.ttl_s: must be a duration like 45s, is a list"),
        ("trust_domain: Cluster.Local\n", "trust_domain: must be 1 to 128 lower-case"),
        ("name: 'a b'\n", "name: must be 1 to 63 letters"),
        ("name:\n", "name: must be text, is empty"),
        ("workers: many\n", "workers: must be a whole number or auto, is 'many'"),
        ("workers: 0\n", "workers: must be from 1 to 64, is 0"),
        ("access_log: loud\n", "access_log: must be true, false or a path, is 'loud'"),
        ("log: {level: loud}\n", "log.level: must be one of debug, info, warning, error; is 'loud'"),
        ("limits: {headers_max: 1}\n", "limits.headers_max: must be from 8 to 10000, is 1"),
        ("ports: {inbound: 7946}\n", "ports.inbound: port 7946 is given to both gossip and inbound"),
        ("ports: {gossip: 15020}\n", "ports.gossip: port 15020 is given to both gossip and admin"),
        ("token: gsm1.abc\ntoken_file: x\n", "peer.yaml:2: token_file: a token is given twice"),
        ("bootstrap: true\ntoken: gsm1.abc\n", "bootstrap: a peer either makes a new mesh or joins one"),
        ("token_file: missing\n", "token_file: cannot read"),
        ("name: a\nname: b\n", "peer.yaml:2: name: is given twice (first in line 1)"),
        ("{name: a, name: b}\n", "peer.yaml:1: name: is given twice"),
        ("- name\n", "peer.yaml:1: must be a mapping of keys"),
        ("name: [a\n", "peer.yaml:2: is not valid YAML"),
        ("name: !!python/object:os.system {}\n", "peer.yaml:1: is not valid YAML"),
        ("name: 2001-99-99\n", "is not valid YAML: month must be in 1..12"),
        ("? [a]\n: b\n", "a key must be plain text"),
        ("name: \x01\n", "is not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line_and_key(tmp_path, text, expected):
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "peer.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "overrides", "expected"),
    [
        ({"GOSSAMER_PORTS_ADMIN": "x"}, {}, "environment variable GOSSAMER_PORTS_ADMIN: must be a whole number"),
        ({"GOSSAMER_BOOTSTRAP": "2"}, {}, "environment variable GOSSAMER_BOOTSTRAP: must be true or false"),
        ({}, {"bind": "nowhere"}, "--bind: must be an IP address, is 'nowhere'"),
        ({}, {"seeds": ("a:0",)}, "--seed: 'a:0': port '0' is not a number from 1 to 65535"),
        ({}, {"bootstrap_expect": "3", "bootstrap": True}, "--bootstrap-expect: contradicts --bootstrap"),
        ({"GOSSAMER_TOKEN": TOKEN}, {"bootstrap": True}, "--bootstrap: a peer either makes a new mesh or joins one"),
        ({}, {"ports__admin": 7946}, "--admin-port: port 7946 is given to both"),
    ],
)  # fmt: skip
def test_what_is_wrong_elsewhere_names_the_variable_or_the_flag(environ, overrides, expected):
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(None, environ, **overrides)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml")


def test_a_huge_file_is_refused_before_it_is_parsed(tmp_path):
    with pytest.raises(ConfigError, match="is larger than 1024 KiB"):
        load(written(tmp_path, "name: a\n" + "# pad\n" * 200_000))


def test_a_deeply_nested_file_is_an_error_and_no_crash(tmp_path):
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load(written(tmp_path, "name: " + "[" * 50_000))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "peer.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path)


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load(written(tmp_path, "# nothing\nports:\n")) == load()


def test_no_repr_and_no_error_shows_a_token(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    config = load(token_file=str(path))
    assert config.token == TOKEN
    assert TOKEN not in repr(config)
    path.write_text("not-" + TOKEN)
    with pytest.raises(ConfigError) as caught:
        load(token_file=str(path))
    assert "is not a join token" in str(caught.value)
    assert TOKEN not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load(token="hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("bind", "advertise", "expected"),
    [
        ("127.0.0.3", None, "127.0.0.3"),
        ("10.0.0.1", None, "127.0.0.1"),
        ("0.0.0.0", None, "127.0.0.1"),
        ("0.0.0.0", "127.0.0.2", "127.0.0.2"),
        ("::1", None, "127.0.0.1"),
    ],
)
def test_loopback_listeners_use_the_peers_own_address_when_that_is_a_loopback_one(bind, advertise, expected):
    assert load(bind=bind, advertise=advertise).loopback == expected


def test_the_advertised_address_is_the_bound_one_or_the_outgoing_one():
    assert load(bind="10.9.9.9").gossip_address == ("10.9.9.9", 7946)
    with pytest.raises(ConfigError, match="--advertise: this host has no default route"):
        load_config(None, {}, {}, find_address=lambda: None)


def test_a_host_name_that_is_no_label_is_made_one():
    config = load_config(None, {}, {}, hostname=lambda: "möbius host.", find_address=lambda: "10.0.0.1")
    assert config.name == "m-bius-host"


def test_a_mistyped_variable_is_a_warning_and_a_foreign_one_is_not():
    environ = {"GOSSAMER_PORTS_GOSIP": "1", "GOSSAMER_SERVICE_HOST": "10.0.0.1", "GOSSAMER_DEBUG": "1"}
    assert load(None, environ).warnings == (
        "environment variable GOSSAMER_PORTS_GOSIP is no key (did you mean GOSSAMER_PORTS_GOSSIP?)",
    )


def test_a_bootstrap_token_is_the_secret_of_those_who_make_a_mesh_together(tmp_path):
    file = tmp_path / "token"
    file.write_text(SECRET.text + "\n")
    for where in ({"token": SECRET.text}, {"token_file": str(file)}):
        config = load(bootstrap_expect="3", **where)
        assert (config.bootstrap, config.bootstrap_expect) == (False, 3)
        assert config.bootstrap_secret == SECRET
        assert config.token is None
        assert SECRET.text not in repr(config)
        assert SECRET.secret.hex() not in repr(config)


def test_the_rules_of_signers_are_read():
    assert load().ca.rules == SignerRules()
    rules = load(**{"ca.signers": "7", "ca.threshold": "5", "ca.settle_s": "0", "ca.gone_s": "10s"}).ca.rules
    assert rules == SignerRules(signers=7, threshold=5, settle_s=0.0, gone_s=10.0)
    assert load(**{"ca.signers": "auto", "ca.threshold": "auto"}).ca.rules == SignerRules()


def test_bootstrap_expect_of_one_is_bootstrap():
    assert load(bootstrap_expect="1").bootstrap is True
    assert load(bootstrap_expect="1", bootstrap=True).bootstrap is True


@example({"GOSSAMER_DATA_DIR": "~0"})
@given(st.dictionaries(st.sampled_from([key.variable for key in KEYS]), st.text(max_size=40), max_size=4))
def test_any_environment_gives_a_config_or_a_config_error(environ):
    config = outcome(None, environ)
    assert str(config) if isinstance(config, ConfigError) else 1 <= config.ports.gossip <= 65_535


@given(st.text(max_size=200))
def test_any_text_as_a_file_gives_a_config_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "peer.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    config = outcome(path, {})
    assert isinstance(config, Config) or str(config).startswith(str(path))


def outcome(path: Path | None, environ) -> Config | ConfigError:
    try:
        return load(path, environ)
    except ConfigError as error:
        return error
