"""A stage's steps made callable, and values on their way in and out."""
