"""The targets, a module for each; see the package around it."""
