"""Aggregates, in an ordinary Python."""

import unittest
from dataclasses import dataclass, field

from weir_guest import Reject, aggregate, from_subject_token, subject_token
from weir_guest.aggregate import Aggregate, Refused, given
from weir_guest.testing import Host, event


@dataclass
class Add:
    item: str
    times: int = 1


@dataclass
class Pay:
    pass


@dataclass
class Added:
    item: str


@dataclass
class Paid:
    pass


@dataclass
class Order(Aggregate, name="shop.order", commands=[Add, Pay], events=[Added, Paid]):
    items: list = field(default_factory=list)
    paid: bool = False

    def decide(self, command):
        match command:
            case _ if self.paid:
                raise Refused({"paid": True})
            case Add(item, times):
                return [Added(item)] * times
            case Pay() if not self.items:
                raise Refused("empty")
            case Pay():
                return [Paid()]

    def evolve(self, event):
        match event:
            case Added("bomb"):
                raise RuntimeError("evolve is broken")
            case Added(item):
                self.items.append(item)
            case Paid():
                self.paid = True


def order(e):
    aggregate.handle(Order, e)


def command(data, headers=()):
    return event("orders.do", key="a.7", data=data, headers=headers)


class Aggregates(unittest.TestCase):
    def test_events_state_and_version_go_together(self):
        host = Host()
        effects = host.deliver(order, command({"type": "Add", "item": "tea", "times": 2}))
        self.assertEqual([one.subject for one in effects.emitted], ["shop.order.a%2E7"] * 2)
        self.assertEqual(effects.emitted[1].data, b'{"type":"Added","item":"tea"}')
        self.assertEqual(effects.emitted[1].headers, [("Event-Type", "Added"), ("Aggregate-Version", "2")])
        self.assertEqual(
            host.cell("a.7", "aggregate"), b'{"version":2,"state":{"items":["tea","tea"],"paid":false}}'
        )
        host.deliver(order, command({"type": "Pay"}))
        self.assertIn(b'"version":3', host.cell("a.7", "aggregate"))

    def test_a_refusal_is_an_event_and_no_fact(self):
        host = Host()
        effects = host.deliver(order, command({"type": "Pay"}, {"Saga-Id": "a.7", "Saga-Step": "pay"}))
        (refusal,) = effects.emitted
        self.assertEqual(refusal.subject, "shop.order.a%2E7.rejected")
        self.assertEqual(refusal.json(), {"command": "TEST:1", "version": 0, "reason": "empty"})
        self.assertEqual(refusal.headers[2:], [("Saga-Id", "a.7"), ("Saga-Step", "pay")])
        self.assertIsNone(host.cell("a.7", "aggregate"))

    def test_an_expected_version_is_compared(self):
        host = Host()
        add = {"type": "Add", "item": "tea"}
        host.deliver(order, command(add, {"Expected-Version": "0"}))
        (refusal,) = host.deliver(order, command(add, {"expected-version": "0"})).emitted
        self.assertEqual(refusal.json(), {"command": "TEST:2", "version": 1, "expected_version": 0})
        for bad in ("one", "-1", "٣"):
            with self.assertRaises(Reject):
                host.deliver(order, command(add, {"Expected-Version": bad}))

    def test_what_is_no_command_is_rejected(self):
        for data, why in (
            (b"{", "not JSON"),
            ([], "none of Add, Pay"),
            ({"type": "Fly"}, "'Fly'"),
            ({"type": "Add"}, "item"),
            ({"type": "Add", "item": "tea", "more": 1}, "more"),
            ({"type": "Add", "item": 5}, "item is 5, which is not str"),
            ({"type": "Add", "item": "tea", "times": True}, "times is True"),
        ):
            with self.assertRaisesRegex(Reject, why):
                Host().deliver(order, command(data))

    def test_an_exception_of_evolve_leaves_nothing_behind(self):
        host = Host()
        with self.assertRaises(RuntimeError):
            host.deliver(order, command({"type": "Add", "item": "bomb"}))
        self.assertIsNone(host.cell("a.7", "aggregate"))

    def test_others_read_its_events(self):
        read = []
        host = Host()

        def follow(e):
            read.append(aggregate.read(Order, e))

        headers = {"Event-Type": "Added", "Aggregate-Version": "3"}
        host.deliver(follow, event("shop.order.a%2E7", data={"type": "Added", "item": "x"}, headers=headers))
        headers["Event-Type"] = "Rejected"
        host.deliver(follow, event("shop.order.a%2E7.rejected", data={}, headers=headers))
        host.deliver(follow, event("weather.told"))
        self.assertEqual(read, [aggregate.Recorded("a.7", 3, Added("x")), None, None])

    def test_rules_are_sentences(self):
        given(Order).when(Pay()).refuses("empty")
        given(Order, Added("tea")).when(Pay()).then(Paid())
        given(Order, Added("tea"), Paid()).when(Pay()).refuses({"paid": True})
        with self.assertRaisesRegex(AssertionError, "decided .*Paid"):
            given(Order, Added("tea")).when(Pay()).then()
        with self.assertRaisesRegex(AssertionError, "refused"):
            given(Order).when(Pay()).then(Paid())

    def test_tokens_read_back(self):
        for text in ("", "7", "a.b", "ü%*>"):
            self.assertEqual(from_subject_token(subject_token(text)), text)
        for bad in ("%", "%4", "%zz", "%ff"):
            self.assertIsNone(from_subject_token(bad))


if __name__ == "__main__":
    unittest.main()
