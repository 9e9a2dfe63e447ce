"""The catalogue of an app: what its runs know of what it declares, and of what it no longer does."""

from __future__ import annotations

import json

import headwater
from headwater.catalogue import AppCatalogue
from headwater.core.prices import Prices


def test_people_are_asked_about_a_tool_that_was_removed_meanwhile():
    """A call in doubt outlives the code that made it: whoever decides all says, and no inbox stops."""
    app = headwater.App("bank")

    @app.tool(effect="irreversible", approve_to="group:payments")
    async def pay(amount: int) -> str:
        return str(amount)

    arguments = pay.parameters.encode({"amount": 7})
    catalogue = AppCatalogue(app, Prices())
    assert catalogue.decides("pay") == "group:payments"
    assert json.loads(catalogue.shown("tool", "pay", arguments)) == {"amount": 7}
    gone = AppCatalogue(headwater.App("bank"), Prices())
    assert gone.decides("pay") == "group:*"
    assert json.loads(gone.shown("tool", "pay", arguments)) == {"bytes": len(arguments)}


def test_a_model_that_was_removed_is_known_to_be_gone():
    """A call that a person lets go afterwards is refused, not sent to where nobody knows it."""
    app = headwater.App("bank")
    app.model("small", "test", price=headwater.usd_per_million(input_usd=0, output_usd=0))
    assert AppCatalogue(app, Prices()).model("small")
    assert not AppCatalogue(headwater.App("bank"), Prices()).model("small")
