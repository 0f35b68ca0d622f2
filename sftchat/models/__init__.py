"""Models: MODEL arguments, loading, weight hashes, export, and the records of how a model was trained."""
