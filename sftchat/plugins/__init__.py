"""Plugin hooks, and the manager that loads plugins by their entry points."""
