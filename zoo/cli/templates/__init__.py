"""What `zoo new` copies: one small method that works for each base, in real files that are checked like all others.

`NewMethod`, `new-method`, `new_method` and `New method` become the names that the user chose, and this package's name
that of the method. Marked lines (`zoo new: ...`) are replaced by what the task asks for.
"""
