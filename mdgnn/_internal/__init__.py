"""Small helpers of the package, for nobody else."""
