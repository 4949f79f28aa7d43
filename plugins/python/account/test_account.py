import unittest

from weir_guest.aggregate import given

from account import Account, Deposit, Deposited, Withdraw, Withdrawn


class Accounts(unittest.TestCase):
    def test_nobody_withdraws_what_is_not_there(self):
        given(Account).when(Withdraw(1)).refuses("there are 0 cents")
        given(Account, Deposited(5)).when(Withdraw(5)).then(Withdrawn(5))
        given(Account, Deposited(5), Withdrawn(3)).when(Withdraw(3)).refuses("there are 2 cents")

    def test_an_amount_is_above_zero(self):
        given(Account).when(Deposit(5)).then(Deposited(5))
        given(Account).when(Deposit(0)).refuses("an amount is above zero")


if __name__ == "__main__":
    unittest.main()
