"""A bank account, event-sourced: ``decide`` and ``evolve``, and nothing else.

Events are on ``bank.account.<id>``, refusals on ``bank.account.<id>.rejected``.
"""

from dataclasses import dataclass

from weir_guest import aggregate, handler
from weir_guest.aggregate import Aggregate, Refused


@dataclass
class Deposit:
    cents: int


@dataclass
class Withdraw:
    cents: int


@dataclass
class Deposited:
    cents: int


@dataclass
class Withdrawn:
    cents: int


@dataclass
class Account(
    Aggregate, name="bank.account", commands=[Deposit, Withdraw], events=[Deposited, Withdrawn]
):
    cents: int = 0

    def decide(self, command):
        if command.cents <= 0:
            raise Refused("an amount is above zero")
        match command:
            case Deposit(cents):
                return [Deposited(cents)]
            case Withdraw(cents) if cents > self.cents:
                raise Refused(f"there are {self.cents} cents")
            case Withdraw(cents):
                return [Withdrawn(cents)]

    def evolve(self, event):
        match event:
            case Deposited(cents):
                self.cents += cents
            case Withdrawn(cents):
                self.cents -= cents


@handler
def account(event):
    aggregate.handle(Account, event)
