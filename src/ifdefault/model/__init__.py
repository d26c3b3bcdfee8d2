"""The nouns: frozen, comparable values that all rooms share."""
