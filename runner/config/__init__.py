"""What may be asked, and what is said to wrong input: schema, validation, errors, seeds, exit codes.

Nothing here trains, writes a file or knows a method.
"""
