"""Asks a language model about documents: labels, properties and rewritten texts, with every answer on the record."""
