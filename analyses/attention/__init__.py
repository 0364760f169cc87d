"""What tokens attend to, recomputed from stored states: flow between token types, and how edits change it."""
