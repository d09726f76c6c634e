"""The address plan: the same as the Go one, whose test's table is read here."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from labkit.cluster.addresses import MACHINES, SLOTS, Slot, served, served_port, service_at
from labkit.errors import ConfigError

GO_TEST = Path(__file__).resolve().parents[2] / "embedded/loopback/loopback_test.go"


def test_slots_are_those_of_the_go_plan() -> None:
    rows = re.findall(r'\{(\d), "([^"]+)", "([^"]+)", "([^"]+)", "([^"]+)", "([^"]+)"\}', GO_TEST.read_text())
    assert len(rows) >= 4
    for number, services, dns, machine_0, machine_1, balancers in rows:
        slot = Slot(int(number))
        found = [
            slot.service_cidr, slot.dns, slot.machine(0).pod_cidr, slot.machine(1).pod_cidr, slot.load_balancer_cidr,
        ]  # fmt: skip
        assert [str(each) for each in found] == [services, dns, machine_0, machine_1, balancers]


def test_addresses_and_ports_are_served_where_the_go_plan_says() -> None:
    text = GO_TEST.read_text()
    mapped = re.findall(r'"([\d.]+)": "([\d.]+)"', text)
    assert len(mapped) >= 4
    for address, where in mapped:
        assert served(address) == IPv4Address(where)
    inside = re.findall(r'"([\d.]+)": (true|false)', text)
    assert len(inside) >= 10
    for address, is_cluster in inside:
        if not address.startswith("198."):
            assert (served_port(address, 80) == 10080) is (is_cluster == "true"), address


def test_ports_of_the_cluster_move_only_when_privileged() -> None:
    dns = Slot(2).dns
    assert [served_port(dns, port) for port in (53, 1023, 1024, 8080)] == [10053, 11023, 1024, 8080]
    assert served_port("127.0.0.1", 80) == 80
    assert served_port("198.18.0.2", 443) == 10443


def test_ports_of_services_are_served_where_the_go_plan_says() -> None:
    rows = re.findall(r'"(127\.[\d.]+):(\d+)": "([\d.]+):(\d+)"', GO_TEST.read_text())
    assert len(rows) >= 10
    for address, port, where, number in rows:
        assert service_at(address, int(port)) == (where, int(number))


def test_slots_and_machines_do_not_overlap() -> None:
    networks = [Slot(s).machine(m).pod_cidr for s in range(SLOTS) for m in range(MACHINES + 1)]
    assert len(set(networks)) == len(networks)
    assert all(n.subnet_of(Slot(i // (MACHINES + 1)).pod_cidr) for i, n in enumerate(networks))


@pytest.mark.parametrize("make", [lambda: Slot(8), lambda: Slot(-1), lambda: Slot(0).machine(63)])
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
