"""Small models that ship with the package, each with the script that made it."""
