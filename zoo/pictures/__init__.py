"""How inputs and results are drawn; imported where something is drawn, never on load."""
