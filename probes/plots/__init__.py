"""Figures: pure functions from tables to `plotly` figures, one file per view; nothing is shown or written here."""
