"""How results are shown: words for numbers, tables, cards, pages and drawings of plain data."""
