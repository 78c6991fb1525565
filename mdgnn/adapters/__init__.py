"""Our neighbour list behind the interfaces of other packages: one file for each package, which it need not import."""
