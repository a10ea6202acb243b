"""How the labels of sheets are ranked: one face, chosen in one place."""
