"""The embedded model ``tiny-reg``: architecture, weights, and the scripts that trained and measured it."""
