"""Networks painted over the whole sky, and what is added to them there."""
