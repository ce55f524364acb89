"""The methods, one folder each; the folder is the id with underscores."""
