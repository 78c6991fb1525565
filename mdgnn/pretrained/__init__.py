"""Small models that ship with the package, each with the script or the recipe that made it."""
