"""Plain implementations written from the papers, for comparison in the same run; none imports rediffuse."""
