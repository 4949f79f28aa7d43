import unittest

from weir_guest import Reject
from weir_guest.testing import Host, event

from handler import count


class Count(unittest.TestCase):
    def test_counts_per_key(self):
        host = Host()
        for n in (1, 2):
            effects = host.deliver(count, event("events.a", key="a", data={"amount": 5}))
            self.assertEqual(effects.emitted[0].data, b'{"key":"a","count":%d}' % n)
        self.assertEqual(host.cell("a", "count"), b"2")

    def test_a_quiet_key_is_told(self):
        host = Host()
        host.deliver(count, event("events.a", key="a", data={"amount": 5}))
        effects = host.fire(count, "a", "quiet")
        self.assertEqual(effects.emitted[0].json(), {"key": "a", "quiet": True})

    def test_what_is_not_json_is_rejected(self):
        with self.assertRaises(Reject):
            Host().deliver(count, event("events.a", data=b"{"))


if __name__ == "__main__":
    unittest.main()
