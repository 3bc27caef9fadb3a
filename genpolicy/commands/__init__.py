"""One module per verb of the ``genpolicy`` command; each composes parts and owns no method."""
