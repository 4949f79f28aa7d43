import unittest

from weir_guest import Reject
from weir_guest.testing import Host, event

from reviews import WINDOW, reviews
from scoring import mood, topics, words

BAD = "Broken after a week, the lid leaks. Terrible!"
GOOD = "Great kettle, I love it!"


def review(text, product="kettle"):
    return event("reviews.web", key=product, data={"product": product, "text": text})


class Scoring(unittest.TestCase):
    def test_words_are_one_form(self):
        self.assertEqual(words("Ça NE marche pas; don’t"), ["Ca", "NE", "marche", "pas", "don't"])

    def test_moods(self):
        self.assertGreater(mood("good"), 0)
        self.assertLess(mood("not good"), 0)
        self.assertLess(mood("not very good"), mood("not good"))
        self.assertGreater(mood("GOOD"), mood("good"))
        self.assertEqual(mood("a kettle"), 0)
        self.assertEqual(mood("💩!!!"), -1)

    def test_topics_are_what_has_no_mood(self):
        self.assertEqual(topics("The lid leaks, terrible handle"), {"handle"})


class Reviews(unittest.TestCase):
    def test_one_alert_until_it_recovers(self):
        host, alerts = Host(), []
        for text in [BAD] * 8 + [GOOD] * WINDOW + [BAD] * WINDOW:
            effects = host.deliver(reviews, review(text))
            self.assertEqual(effects.emitted[0].subject, "scores.kettle")
            alerts += effects.emitted[1:]
        self.assertEqual([alert.subject for alert in alerts], ["alerts.kettle"] * 2)
        self.assertEqual(alerts[0].json()["about"], [])

    def test_alerts_say_what_it_is_about(self):
        host = Host(config={"alert_below": "-0.5"})
        for _ in range(4):
            self.assertEqual(len(host.deliver(reviews, review("Bad handle, awful")).emitted), 1)
        effects = host.deliver(reviews, review("The handle broke, and the switch"))
        self.assertEqual(effects.emitted[1].json(), {"product": "kettle", "mean": -0.84, "about": ["handle", "switch"]})
        self.assertEqual(effects.log[0][0], "warn")

    def test_what_is_no_review_is_rejected(self):
        for data in (b"{", [], {"text": 1}):
            with self.assertRaises(Reject):
                Host().deliver(reviews, event("reviews.web", data=data))


if __name__ == "__main__":
    unittest.main()
