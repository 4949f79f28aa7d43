"""The payment of an order, event-sourced: ``decide`` and ``evolve``, and nothing else.

Events are on ``shop.payment.<order>``, refusals on ``shop.payment.<order>.rejected``. A command that comes
again, because its answer was late, is answered again and does nothing twice.
"""

from dataclasses import dataclass

from weir_guest import aggregate, handler
from weir_guest.aggregate import Aggregate, Refused


@dataclass
class Charge:
    cents: int
    card: str


@dataclass
class Refund:
    pass


@dataclass
class Charged:
    cents: int


@dataclass
class Confirmed:
    """What was charged before, said again. It moves no money."""

    cents: int


@dataclass
class Refunded:
    """What was given back: nothing, if nothing was charged."""

    cents: int


@dataclass
class Payment(
    Aggregate,
    name="shop.payment",
    commands=[Charge, Refund],
    events=[Charged, Confirmed, Refunded],
):
    #: What is taken, and not given back.
    cents: int = 0
    refunded: bool = False

    def decide(self, command):
        match command:
            case Refund():
                return [Refunded(self.cents)]
            case Charge() if self.refunded:
                raise Refused("it was refunded")
            case Charge() if self.cents:
                return [Confirmed(self.cents)]
            case Charge(card="declined"):
                raise Refused("the card is declined")
            case Charge(card="silent"):
                return []  # the bank does not answer, and neither do we
            case Charge(cents):
                return [Charged(cents)]

    def evolve(self, event):
        match event:
            case Charged(cents):
                self.cents = cents
            case Refunded():
                self.cents = 0
                self.refunded = True


@handler
def payments(event):
    aggregate.handle(Payment, event)
