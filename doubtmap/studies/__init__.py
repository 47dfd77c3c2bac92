"""Studies: analyses of the papers, each a pass over a data set and a table or a page."""
