"""From the tree of a page to its main text: blocks, what speaks for and against each, and which are kept."""
