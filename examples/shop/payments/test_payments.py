import unittest

from weir_guest.aggregate import given

from payments import Charge, Charged, Confirmed, Payment, Refund, Refunded


class Payments(unittest.TestCase):
    def test_money_is_taken_once(self):
        given(Payment).when(Charge(600, "good")).then(Charged(600))
        given(Payment, Charged(600)).when(Charge(600, "good")).then(Confirmed(600))

    def test_money_is_given_back_once(self):
        given(Payment, Charged(600)).when(Refund()).then(Refunded(600))
        given(Payment, Charged(600), Refunded(600)).when(Refund()).then(Refunded(0))

    def test_a_refund_succeeds_where_nothing_was_charged(self):
        given(Payment).when(Refund()).then(Refunded(0))
        given(Payment, Refunded(0)).when(Charge(600, "good")).refuses("it was refunded")

    def test_a_card_may_be_declined(self):
        given(Payment).when(Charge(600, "declined")).refuses("the card is declined")
        given(Payment).when(Charge(600, "silent")).then()


if __name__ == "__main__":
    unittest.main()
