"""How each kind of file is read: one module a kind. `lowprec.tensors.writing` writes them."""
