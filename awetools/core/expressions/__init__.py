"""The one expression language: parsed, evaluated, or compiled to SQL; never run as code."""
