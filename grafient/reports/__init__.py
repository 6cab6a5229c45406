"""The read side: one module for each page, above the one select that every figure comes from (``sums``).

Each page's module has a ``report`` function that returns frozen dataclasses with everything the page shows. USD are
Decimal, exact; days are UTC; a figure that is not known is None, never zero. Totals leave provisional days out.
Amounts are what was charged to credits, or with the BYOK estimate if the query asks for it.
"""
