from dataclasses import replace

import pytest

from gossip.config import PROFILES, ProbeOrder, lan, memberlist
from gossip.errors import ConfigError


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_is_consistent(name: str) -> None:
    config = PROFILES[name]()
    assert config.probe_timeout_s < config.probe_interval_s
    assert config == replace(config)


def test_lan_keeps_the_defaults_operators_know() -> None:
    config = lan()
    assert (config.probe_interval_s, config.probe_timeout_s, config.indirect_probes) == (1.0, 0.5, 3)
    assert (config.gossip_interval_s, config.gossip_nodes, config.health_max) == (0.2, 3, 8)
    assert config.suspicion_mult_alone == 4


def test_memberlist_is_hashicorps_algorithm_with_the_constants_of_its_lan_profile() -> None:
    config = memberlist()
    assert (config.probe_order, config.probe_interval_s) == (ProbeOrder.ROUND_ROBIN, 1.0)
    assert config.probe_timeout_s == config.probe_timeout_s_min == 0.5
    assert config.probe_timeout_s * (1 + config.indirect_timeout_mult) == config.probe_interval_s
    assert (config.indirect_probes, config.suspicion_mult_alone, config.suspicion_max_mult) == (3, 4.0, 6.0)
    assert (config.confirmations, config.witnesses, config.dead_on_word) == (2, 0, True)
    assert (config.gossip_interval_s, config.gossip_nodes, config.retransmit_mult) == (0.2, 3, 4)
    assert (config.urgent_rounds_per_s, config.gossip_to_the_dead_s, config.health_max) == (0, 30.0, 8)
    assert not config.feedback
    assert (config.push_pull_interval_s, config.sync_whole, config.compare_members) == (30.0, True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"probe_timeout_s": 1.0},
        {"probe_timeout_s": 0.0},
        {"gossip_interval_s": -1.0},
        {"gossip_nodes": 0},
        {"gossip_nodes_max": 2},
        {"gossip_datagrams_max": 4},
        {"members_max": 0},
        {"indirect_probes": -1},
        {"nack_share": 1.0},
        {"suspicion_mult_alone": 0.0},
        {"probe_timeout_s_min": 0.6},
        {"indirect_timeout_mult": 0.5},
        {"suspicion_mult_corroborated": 0.0},
        {"suspicion_max_mult": 0.5},
        {"contact_backoff_s": 31.0},
        {"contact_stream_every": 0},
        {"members_spacing_s": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(lan(), **wrong)


def test_retransmits_grow_with_the_logarithm_of_the_mesh() -> None:
    assert [lan().retransmits(n) for n in (1, 9, 10, 99, 100, 1000)] == [4, 4, 8, 8, 12, 16]


def test_a_round_widens_with_the_tellings_of_an_update_and_never_below_what_is_set() -> None:
    sizes = (1, 99, 100, 999, 1000, 10_000, 1_000_000)
    assert [lan().fan_out(n) for n in sizes] == [3, 3, 4, 4, 5, 5, 5]
    assert [PROFILES["wan"]().fan_out(n) for n in sizes] == [4, 4, 4, 4, 5, 5, 5]
    assert {memberlist().fan_out(n) for n in sizes} == {3}


def test_push_pull_slows_down_beyond_32_members() -> None:
    sizes = (1, 32, 33, 64, 65, 1024)
    assert [memberlist().push_pull_s(n) for n in sizes] == [30, 30, 60, 60, 90, 180]
    assert [lan().members_patience_s(n) for n in sizes] == [5, 5, 10, 10, 15, 30]
