"""Example images, and what tokens look like on them: for figures and reports."""
