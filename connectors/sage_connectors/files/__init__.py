"""Reading files as streams of rows: where they are, how they are cut into rows, how a growing one is followed."""
