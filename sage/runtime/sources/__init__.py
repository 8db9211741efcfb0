"""Sources: who reads them, how their records leave, and where they have got to."""
