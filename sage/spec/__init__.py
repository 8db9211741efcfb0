"""What a component is: its classes, its context, its options, its configuration and its registry."""
