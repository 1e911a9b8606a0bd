"""Places that callers share, so that no caller can take all of them."""

from __future__ import annotations

from collections import Counter
from enum import Enum, auto
from ipaddress import IPv6Address, ip_address

NETWORK = 64  # bits of an IPv6 address that are the network's; a host may choose the rest


class Refusal(Enum):
    """Reasons for which places are refused."""

    FULL = auto()  # no place is free for any caller
    SHARE = auto()  # this caller holds as many places as are free for other callers


class Room:
    """A limited resource that callers share: connections, images or bytes.

    A caller may hold as much as stays free (dynamic thresholds, Choudhury and Hahne, IEEE/ACM
    Transactions on Networking 1998): a single one half of the room, each of two a third. A caller
    that comes later therefore always finds room, unless there are as many callers as units.

    Args:
        size: units of the resource.

    Attributes:
        in_use: units that callers hold.
    """

    def __init__(self, size: int) -> None:
        self.size, self.in_use = size, 0
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str | None, amount: int) -> Refusal | None:
        """Take places, or return why there are none.

        Args:
            caller: who holds them; None for an address of many callers, such as a proxy's.
            amount: number of places.
        """
        free = self.size - self.in_use - amount
        if free < 0:
            return Refusal.FULL
        if caller is not None and self._by_caller[caller] + amount > max(free, 1):
            return Refusal.SHARE
        self.in_use += amount
        if caller is not None:
            self._by_caller[caller] += amount
        return None

    def give_back(self, caller: str | None, amount: int) -> None:
        """Give places back."""
        self.in_use -= amount
        if caller is None:
            return
        self._by_caller[caller] -= amount
        if not self._by_caller[caller]:
            del self._by_caller[caller]


def caller_of(host: str) -> str:
    """Return the name of a caller: an IPv4 address, or the network of an IPv6 address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a name, or a proxy's placeholder for an address that it hides
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> (128 - NETWORK) << (128 - NETWORK)))
    return str(address)
