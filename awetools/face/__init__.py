"""The Python face: the declared kinds as classes, their products as objects, conditions as Python expressions."""
