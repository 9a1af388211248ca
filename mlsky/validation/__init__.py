"""How good networks and truth are: scores, tables, pages, published and observed figures."""
