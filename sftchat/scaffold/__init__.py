"""What users start from: a new plugin project, a new task file, a CI job."""
