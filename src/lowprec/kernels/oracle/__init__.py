"""The oracle in integers: written apart from the rules that it judges."""
