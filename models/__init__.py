"""Networks, one file per family, each a chain of named blocks."""
