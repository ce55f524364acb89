"""One suite for every entry of the index: no test names a method, properties decide what applies."""
