"""Names and settings of DDS as ROS 2 uses it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from xml.sax.saxutils import quoteattr


def dds_topic(namespace: str, name: str) -> str:
    """A ROS topic as DDS has it: below "rt", and below the namespace unless it begins with "/"."""
    parts = name.split("/") if name.startswith("/") else [*namespace.split("/"), *name.split("/")]
    return "/".join(["rt", *filter(None, parts)])


def ros_topic(topic: str) -> str:
    """A DDS topic as people know it."""
    return topic.removeprefix("rt")


def dds_config(interface: str, peers: Sequence[str]) -> str:
    """Cyclone DDS's XML: this interface, and these hosts by address instead of by multicast.

    Args:
        interface: name or address; empty for any.
        peers: names or addresses; none for multicast as the interface permits.
    """
    hosts = "".join(f"<Peer address={quoteattr(str(peer))}/>" for peer in peers)
    return (
        f"<CycloneDDS><Domain><General><AllowMulticast>{'false' if peers else 'default'}"
        f"</AllowMulticast>{_interface(interface)}</General><Discovery>"
        f"<ParticipantIndex>auto</ParticipantIndex><Peers>{hosts}</Peers>"
        f"</Discovery></Domain></CycloneDDS>"
    )


def _interface(interface: str) -> str:
    if not interface:
        return ""
    try:
        key = f"address={quoteattr(str(ipaddress.ip_address(interface)))}"
    except ValueError:
        key = f"name={quoteattr(interface)}"
    return f"<Interfaces><NetworkInterface {key}/></Interfaces>"
