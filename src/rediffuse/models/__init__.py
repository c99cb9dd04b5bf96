"""One published method a file; each wires parts that stand elsewhere and says where its equations are."""
