"""What becomes of a record that failed: what it means, when it is tried again, how it waits, how it is buried."""
