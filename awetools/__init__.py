"""awetools: small programs that reduce wide-field astronomical images, with every bit traceable."""

__version__ = "0.1.0"
